//! A session with a server, in which nothing is found that its databases' owners made.
//!
//! What we ask is asked with an empty search path, which is set as the session begins and is
//! stronger than what owners set for a database or a role: only pg_catalog is searched. Values are
//! parameters. Each text is one statement, whatever stands in it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Connection, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::host::socket;

use super::login::Login;
use super::versions::major;

/// How long a server may take to let us in.
const PATIENCE: Duration = Duration::from_secs(20);

/// A value for a statement.
pub(crate) type Value<'a> = &'a (dyn ToSql + Sync);

/// What every session of ours begins with, whatever is set for its server, role or database, by
/// name; for a server of this major version: one that a server does not know ends the session.
pub(super) fn settings(major: u32) -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = [
        (0, "search_path", ""),
        (0, "role", "none"),
        (0, "client_encoding", "UTF8"),
        (0, "default_transaction_read_only", "off"),
        (0, "standard_conforming_strings", "on"),
        (0, "quote_all_identifiers", "off"),
        (0, "transform_null_equals", "off"),
        (0, "array_nulls", "on"),
        (0, "DateStyle", "ISO"),
        (0, "IntervalStyle", "postgres"),
        (0, "statement_timeout", "0"),
        (0, "lock_timeout", "0"),
        (0, "idle_in_transaction_session_timeout", "0"),
        (14, "idle_session_timeout", "0"),
        (17, "transaction_timeout", "0"),
    ];
    all.into_iter()
        .filter(move |(since, _, _)| *since <= major)
        .map(|(_, name, value)| (name, value))
}

/// Versions that know one more of them, the newest first: which one a server is, it says when the
/// session is open, and then its owner's limits could have ended it.
const LEVELS: [u32; 3] = [17, 14, 0];

/// How long a session that insists waits for a lock before it looks who has it, and between two
/// looks.
const COURTESY: Duration = Duration::from_secs(1);
/// When it gives up all the same: nobody could be ended.
const INSISTENCE: &str = "20s";
/// How long a server may wait for every session to look up.
const LOOKING_UP: &str = "120s";
/// Who has been at one statement for longest, and does not wait for something else that could be
/// ended.
const BUSY: &str = "SELECT 'session ' || pid || ' of ' || coalesce(usename, '?') || ' in ' || coalesce(datname, '?') FROM pg_catalog.pg_stat_activity \
    WHERE state = 'active' AND pid <> pg_catalog.pg_backend_pid() \
        AND coalesce(wait_event_type, '') NOT IN ('Activity', 'IPC', 'Lock', 'Timeout') ORDER BY query_start LIMIT 2";
/// How soon a server notices, in the middle of a statement, that we are gone.
const CHECK: &str = "10s";

/// Ends whoever a session waits for.
const END_BLOCKERS: &str = "SELECT pg_catalog.pg_terminate_backend(a.pid), a.pid, coalesce(a.usename::text, '?'), coalesce(a.datname::text, '?') \
    FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY(pg_catalog.pg_blocking_pids($1::int4))";

/// An open session. It ends with this value.
pub(crate) struct Session {
    client: tokio_postgres::Client,
    /// With what it ends the sessions of others that it waits for, and its own number.
    insistence: Option<(Box<Session>, i32)>,
    connection: JoinHandle<Result<()>>,
    /// The server's major version.
    pub major: u32,
    /// The server's version, as it says it.
    pub version: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        // The server ends a session whose connection is closed.
        self.connection.abort();
    }
}

impl Session {
    pub(super) async fn open(login: &Login, database: &str) -> Result<Self> {
        let from = login.level.load(Ordering::Relaxed);
        for level in LEVELS.into_iter().filter(|level| *level <= from) {
            match Self::enter(login, database, level).await {
                Err(error) if code(&error) == Some(&SqlState::UNDEFINED_OBJECT) && level > 0 => {}
                Err(error) => return Err(error),
                Ok(session) => {
                    login.level.store(level, Ordering::Relaxed);
                    return session.settle().await;
                }
            }
        }
        Err(anyhow!("the server knows none of our settings"))
    }

    async fn enter(login: &Login, database: &str, level: u32) -> Result<Self> {
        let mut config = tokio_postgres::Config::new();
        let options: Vec<String> =
            settings(level).map(|(name, value)| format!("-c {name}={value}")).collect();
        config
            .user(&login.config.user)
            .dbname(database)
            .application_name(login.application)
            .options(options.join(" "));
        config.connect_timeout(PATIENCE);
        if let Some(password) = &login.password {
            config.password(password);
        }
        if login.by_socket() {
            return within(by_socket(login, &config)).await;
        }
        config.host(&login.config.host).port(login.config.port);
        // As libpq does: encrypted where the server offers it, and else not. Whose certificate it
        // is, is not asked.
        config.ssl_mode(SslMode::Prefer);
        match within(by_tls(&config)).await {
            Ok(session) => Ok(session),
            Err(refused) if code(&refused) == Some(&SqlState::UNDEFINED_OBJECT) => Err(refused),
            Err(refused) => {
                config.ssl_mode(SslMode::Disable);
                within(by_tls(&config)).await.map_err(|_| refused)
            }
        }
    }

    /// The same settings again: a pooler in between may have kept the options for itself.
    async fn settle(self) -> Result<Self> {
        let (names, values): (Vec<&str>, Vec<&str>) = settings(self.major).unzip();
        let sql = "SELECT pg_catalog.set_config(s.n, s.v, false) \
            FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS s(n, v)";
        self.rows(sql, &[&names, &values]).await?;
        Ok(self)
    }

    async fn begin<S, T>(
        client: tokio_postgres::Client,
        connection: Connection<S, T>,
    ) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let version = connection
            .parameter("server_version")
            .context("the server does not tell its version")?
            .to_owned();
        let major =
            major(&version).with_context(|| format!("'{version}' is no version of a server"))?;
        let connection = tokio::spawn(async move { connection.await.map_err(said) });
        Ok(Self { client, insistence: None, connection, major, version })
    }

    /// Has it wait for nobody: who keeps a lock that one of its statements needs is ended by
    /// `other`. Anybody who may log in can keep one on a database or a role, from any database, for
    /// as long as he likes.
    pub(super) async fn insisting(mut self, other: Self) -> Result<Self> {
        let own: i32 = self.value("SELECT pg_catalog.pg_backend_pid()", &[]).await?;
        self.value::<String>(
            "SELECT pg_catalog.set_config('lock_timeout', $1::text, false)",
            &[&INSISTENCE],
        )
        .await?;
        if self.major >= 14 {
            let set =
                "SELECT pg_catalog.set_config('client_connection_check_interval', $1::text, false)";
            // Not every system can.
            if let Err(error) = self.value::<String>(set, &[&CHECK]).await {
                tracing::debug!("{error:#}");
            }
        }
        self.insistence = Some((Box::new(other), own));
        Ok(self)
    }

    /// What becomes of a statement, which waits for nobody if this session insists.
    async fn through<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let Some((other, own)) = &self.insistence else { return statement.await.map_err(said) };
        tokio::pin!(statement);
        loop {
            match timeout(COURTESY, &mut statement).await {
                Ok(done) => return done.map_err(said),
                Err(_) => other.end_blockers(*own).await,
            }
        }
    }

    /// A look that fails is made again: the statement that waits has its own limit.
    async fn end_blockers(&self, pid: i32) {
        match self.client.query(END_BLOCKERS, &[&pid]).await {
            Ok(ended) => {
                for row in ended {
                    let (pid, user, database): (i32, String, String) =
                        (row.get(1), row.get(2), row.get(3));
                    tracing::warn!(
                        "session {pid} of '{user}' in database '{database}' kept a lock that this needs: it was told to end"
                    );
                }
            }
            Err(error) => tracing::debug!("{:#}", said(error)),
        }
    }

    /// The rows of one statement.
    pub async fn rows(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        self.through(self.client.query(sql, values)).await
    }

    /// The first column of each row.
    pub async fn column<T: FromSqlOwned>(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<T>> {
        let rows = self.rows(sql, values).await?;
        rows.iter().map(|row| row.try_get(0).map_err(said)).collect()
    }

    /// The only column of the only row.
    pub async fn value<T: FromSqlOwned>(&self, sql: &str, values: &[Value<'_>]) -> Result<T> {
        let row = self.through(self.client.query_one(sql, values)).await?;
        row.try_get(0).map_err(said)
    }

    /// One statement; a second in the same text is refused by the server.
    pub async fn run(&self, sql: &str) -> Result<()> {
        self.through(self.client.execute(sql, &[])).await.map(drop)
    }

    /// One that makes or drops a database, which waits for every session of every database to look
    /// up. One that computes may not for hours.
    ///
    /// # Errors
    /// With those that it may be, if the server has waited for as long as is reasonable.
    pub async fn run_with_all(&self, sql: &str) -> Result<()> {
        let set = "SELECT pg_catalog.set_config('statement_timeout', $1::text, false)";
        self.value::<String>(set, &[&LOOKING_UP]).await?;
        let done = self.run(sql).await;
        self.value::<String>(set, &[&"0"]).await?;
        let Err(error) = done else { return Ok(()) };
        if code(&error) != Some(&SqlState::QUERY_CANCELED) {
            return Err(error);
        }
        let busy: Vec<String> = self.column(BUSY, &[]).await?;
        Err(error.context(format!(
            "the server has waited for {LOOKING_UP} for a session that does not look up: {}",
            busy.join(", ")
        )))
    }

    /// All that stands in a text, as pg_dump wrote it.
    pub async fn script(&self, sql: &str) -> Result<()> {
        self.through(self.client.batch_execute(sql)).await
    }

    /// What is done in one transaction: all of it, or nothing.
    pub async fn transaction(&self, statements: &[String]) -> Result<()> {
        self.hold(statements).await?;
        self.run("COMMIT").await
    }

    /// The same, and not ended yet, unless one of them fails.
    pub async fn hold(&self, statements: &[String]) -> Result<()> {
        self.run("BEGIN").await?;
        for statement in statements {
            if let Err(error) = self.run(statement).await {
                let _ = self.run("ROLLBACK").await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether it still goes on.
    pub fn is_lost(&self) -> bool {
        self.connection.is_finished()
    }

    /// Why it ended.
    pub async fn loss(&mut self) -> String {
        match (&mut self.connection).await {
            Ok(Err(error)) => format!("{error:#}"),
            _ => "the server has closed it".to_owned(),
        }
    }
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(anyhow!("no answer within {PATIENCE:?}")))
}

/// The server asks the kernel who has connected: that is done as the configured user, in a thread
/// of its own.
async fn by_socket(login: &Login, config: &tokio_postgres::Config) -> Result<Session> {
    let path =
        format!("{}/.s.PGSQL.{}", login.config.host.trim_end_matches('/'), login.config.port);
    let stream = socket::connect(Path::new(&path), login.account, PATIENCE).await?;
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(said)?;
    Session::begin(client, connection).await
}

async fn by_tls(config: &tokio_postgres::Config) -> Result<Session> {
    let (client, connection) = config.connect(tls()?).await.map_err(said)?;
    Session::begin(client, connection).await
}

fn tls() -> Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Anybody(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS cannot be used")?;
    Ok(MakeRustlsConnect::new(
        config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth(),
    ))
}

/// Takes every certificate whose key is there: `sslmode=prefer` protects from who only listens.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a server says of its failure.
#[derive(Debug)]
pub(crate) struct Refused {
    text: String,
    code: SqlState,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

fn said(error: tokio_postgres::Error) -> anyhow::Error {
    let Some(server) = error.as_db_error() else { return anyhow::Error::new(error) };
    let more = [("DETAIL", server.detail()), ("HINT", server.hint())];
    let more: String =
        more.iter().filter_map(|(word, text)| Some(format!("; {word}: {}", (*text)?))).collect();
    let text = format!("{}: {}{more}", server.severity(), server.message());
    anyhow::Error::new(Refused { text, code: server.code().clone() })
}

/// The server's own code for an error, if it is one of the server's.
pub(crate) fn code(error: &anyhow::Error) -> Option<&SqlState> {
    error.chain().find_map(|cause| cause.downcast_ref::<Refused>()).map(|refused| &refused.code)
}
