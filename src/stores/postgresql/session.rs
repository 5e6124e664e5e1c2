//! A session with a server. Objects that the owners of its databases have created, such as
//! functions or operators, cannot affect the queries of this program.
//!
//! Every session starts with an empty search path, which takes precedence over the settings of the
//! database and the role, so only pg_catalog is searched. Values are passed as parameters, and a
//! text with more than one statement is refused.

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

/// How long connecting to a server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The value of a parameter.
pub(crate) type Value<'a> = &'a (dyn ToSql + Sync);

/// The settings, by name, with which every session starts instead of those of the server, the role
/// or the database. Only settings that a server of this major version has: an unknown one makes the
/// server refuse the connection.
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

/// The versions that introduced one of the settings, the newest first. Each is tried in turn: the
/// server's version is only known when the session is open, and the owner's limits could have ended
/// the session by then.
const LEVELS: [u32; 3] = [17, 14, 0];

/// How long to wait for a lock before the sessions that hold it are ended, and between two
/// attempts.
const END_BLOCKERS_EVERY: Duration = Duration::from_secs(1);
/// The `lock_timeout` of a session that ends its blockers: some sessions cannot be ended.
const LOCK_TIMEOUT: &str = "20s";
/// How long a server may wait until every session has processed its barrier.
const BARRIER_TIMEOUT: &str = "120s";
/// The sessions that have run one statement for longest, and do not wait for anything that could be
/// ended.
const BUSY: &str = "SELECT 'session ' || pid || ' of ' || coalesce(usename, '?') || ' in ' || \
                    coalesce(datname, '?') FROM pg_catalog.pg_stat_activity \
    WHERE state = 'active' AND pid <> pg_catalog.pg_backend_pid() \
        AND coalesce(wait_event_type, '') NOT IN ('Activity', 'IPC', 'Lock', 'Timeout') ORDER BY \
        query_start LIMIT 2";
/// How often a server checks, while it runs a statement, whether the client is still connected.
const CONNECTION_CHECK: &str = "10s";

/// Ends the sessions that block a session.
const END_BLOCKERS: &str = "SELECT pg_catalog.pg_terminate_backend(a.pid), a.pid, \
                            coalesce(a.usename::text, '?'), coalesce(a.datname::text, '?') \
    FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY(pg_catalog.pg_blocking_pids($1::int4))";

/// An open session. Dropping this value ends it.
pub(crate) struct Session {
    client: tokio_postgres::Client,
    /// A second session that ends the sessions which block this one, and the PID of this one.
    terminator: Option<(Box<Session>, i32)>,
    connection: JoinHandle<Result<()>>,
    /// The server's major version.
    pub major: u32,
    /// The server's `server_version`.
    pub version: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        // The server ends a session whose connection is closed.
        self.connection.abort();
    }
}

impl Session {
    /// Opens a session in `database`.
    pub(super) async fn open(login: &Login, database: &str) -> Result<Self> {
        let from = login.level.load(Ordering::Relaxed);
        for level in LEVELS.into_iter().filter(|level| *level <= from) {
            match Self::connect(login, database, level).await {
                Err(error) if code(&error) == Some(&SqlState::UNDEFINED_OBJECT) && level > 0 => {}
                Err(error) => return Err(error),
                Ok(session) => {
                    login.level.store(level, Ordering::Relaxed);
                    return session.apply_settings().await;
                }
            }
        }
        Err(anyhow!("the server refuses all settings"))
    }

    /// Connects with the settings of version `level`.
    async fn connect(login: &Login, database: &str, level: u32) -> Result<Self> {
        let mut config = tokio_postgres::Config::new();
        let options: Vec<String> =
            settings(level).map(|(name, value)| format!("-c {name}={value}")).collect();
        config
            .user(&login.config.user)
            .dbname(database)
            .application_name(login.application)
            .options(options.join(" "));
        config.connect_timeout(CONNECT_TIMEOUT);
        if let Some(password) = &login.password {
            config.password(password);
        }
        if login.by_socket() {
            return with_timeout(connect_to_socket(login, &config)).await;
        }
        config.host(&login.config.host).port(login.config.port);
        // As libpq does by default: encrypted if the server supports that, and without verifying
        // the server's certificate.
        config.ssl_mode(SslMode::Prefer);
        match with_timeout(connect_to_host(&config)).await {
            Ok(session) => Ok(session),
            Err(refused) if code(&refused) == Some(&SqlState::UNDEFINED_OBJECT) => Err(refused),
            Err(refused) => {
                config.ssl_mode(SslMode::Disable);
                with_timeout(connect_to_host(&config)).await.map_err(|_| refused)
            }
        }
    }

    /// Sets the same settings again: a connection pooler may have ignored the options.
    async fn apply_settings(self) -> Result<Self> {
        let (names, values): (Vec<&str>, Vec<&str>) = settings(self.major).unzip();
        let sql = "SELECT pg_catalog.set_config(s.n, s.v, false) \
            FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS s(n, \
            v)";
        self.rows(sql, &[&names, &values]).await?;
        Ok(self)
    }

    async fn start<S, T>(
        client: tokio_postgres::Client,
        connection: Connection<S, T>,
    ) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let version = connection
            .parameter("server_version")
            .context("the server did not report its version")?
            .to_owned();
        let major = major(&version)
            .with_context(|| format!("the server reported '{version}' as its version"))?;
        let connection = tokio::spawn(async move { connection.await.map_err(describe) });
        Ok(Self { client, terminator: None, connection, major, version })
    }

    /// From now on, uses `terminator` to end the sessions that hold a lock which a statement of
    /// this session waits for. Every role that may log in can lock a database or a role, from any
    /// database, for as long as it likes.
    pub(super) async fn ending_blockers(mut self, terminator: Self) -> Result<Self> {
        let pid: i32 = self.value("SELECT pg_catalog.pg_backend_pid()", &[]).await?;
        self.value::<String>(
            "SELECT pg_catalog.set_config('lock_timeout', $1::text, false)",
            &[&LOCK_TIMEOUT],
        )
        .await?;
        if self.major >= 14 {
            let set =
                "SELECT pg_catalog.set_config('client_connection_check_interval', $1::text, false)";
            // Not supported on every operating system.
            if let Err(error) = self.value::<String>(set, &[&CONNECTION_CHECK]).await {
                tracing::debug!("{error:#}");
            }
        }
        self.terminator = Some((Box::new(terminator), pid));
        Ok(self)
    }

    /// Waits for the result of a statement. Ends the sessions that block it, if there is a
    /// terminator.
    async fn finish<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let Some((terminator, pid)) = &self.terminator else {
            return statement.await.map_err(describe);
        };
        tokio::pin!(statement);
        loop {
            match timeout(END_BLOCKERS_EVERY, &mut statement).await {
                Ok(result) => return result.map_err(describe),
                Err(_) => terminator.end_blockers(*pid).await,
            }
        }
    }

    /// Ends the sessions that block the session with this PID. Ignores errors: the caller tries
    /// again until the blocked statement times out.
    async fn end_blockers(&self, pid: i32) {
        match self.client.query(END_BLOCKERS, &[&pid]).await {
            Ok(ended) => {
                for row in ended {
                    let (pid, user, database): (i32, String, String) =
                        (row.get(1), row.get(2), row.get(3));
                    tracing::warn!(
                        "session {pid} of '{user}' in database '{database}' kept a lock that the \
                         restore needs: it was ended"
                    );
                }
            }
            Err(error) => tracing::debug!("{:#}", describe(error)),
        }
    }

    /// Runs one statement, and returns its rows.
    pub async fn rows(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        self.finish(self.client.query(sql, values)).await
    }

    /// Runs one statement, and returns the first column of each row.
    pub async fn column<T: FromSqlOwned>(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<T>> {
        let rows = self.rows(sql, values).await?;
        rows.iter().map(|row| row.try_get(0).map_err(describe)).collect()
    }

    /// Runs one statement, and returns the first column of its only row.
    pub async fn value<T: FromSqlOwned>(&self, sql: &str, values: &[Value<'_>]) -> Result<T> {
        let row = self.finish(self.client.query_one(sql, values)).await?;
        row.try_get(0).map_err(describe)
    }

    /// Runs one statement. The server refuses a text with more than one.
    pub async fn run(&self, sql: &str) -> Result<()> {
        self.finish(self.client.execute(sql, &[])).await.map(drop)
    }

    /// Runs a statement that creates or drops a database. Such a statement waits until every
    /// session of the server has processed a barrier (procsignalbarrier), which a busy session may
    /// not do for hours.
    ///
    /// # Errors
    /// If the wait takes too long. The error names the busy sessions.
    pub async fn run_with_barrier(&self, sql: &str) -> Result<()> {
        let set = "SELECT pg_catalog.set_config('statement_timeout', $1::text, false)";
        self.value::<String>(set, &[&BARRIER_TIMEOUT]).await?;
        let result = self.run(sql).await;
        let reset = self.value::<String>(set, &[&"0"]).await;
        let Err(error) = result else { return reset.map(drop) };
        if code(&error) != Some(&SqlState::QUERY_CANCELED) {
            return Err(error);
        }
        let busy: Vec<String> = self.column(BUSY, &[]).await?;
        Err(error.context(format!(
            "the server has waited for {BARRIER_TIMEOUT} for a session that does not look up: {}",
            busy.join(", ")
        )))
    }

    /// Runs all statements in a text, as pg_dump wrote it.
    pub async fn script(&self, sql: &str) -> Result<()> {
        self.finish(self.client.batch_execute(sql)).await
    }

    /// Runs the statements in one transaction.
    pub async fn transaction(&self, statements: &[String]) -> Result<()> {
        self.begin(statements).await?;
        self.run("COMMIT").await
    }

    /// Runs the statements in a transaction and leaves it open. Rolls back if a statement fails.
    pub async fn begin(&self, statements: &[String]) -> Result<()> {
        self.run("BEGIN").await?;
        for statement in statements {
            if let Err(error) = self.run(statement).await {
                let _ = self.run("ROLLBACK").await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the session has ended.
    pub fn is_lost(&self) -> bool {
        self.connection.is_finished()
    }

    /// Waits for the end of the session, and returns the reason.
    pub async fn loss(&mut self) -> String {
        match (&mut self.connection).await {
            Ok(Err(error)) => format!("{error:#}"),
            _ => "the server has closed it".to_owned(),
        }
    }
}

async fn with_timeout<T>(connecting: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(anyhow!("no answer within {CONNECT_TIMEOUT:?}")))
}

/// Connects as the configured OS user, in a separate thread: the server asks the kernel for the
/// user of the client.
async fn connect_to_socket(login: &Login, config: &tokio_postgres::Config) -> Result<Session> {
    let path =
        format!("{}/.s.PGSQL.{}", login.config.host.trim_end_matches('/'), login.config.port);
    let stream = socket::connect(Path::new(&path), login.account, CONNECT_TIMEOUT).await?;
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(describe)?;
    Session::start(client, connection).await
}

async fn connect_to_host(config: &tokio_postgres::Config) -> Result<Session> {
    let (client, connection) = config.connect(tls()?).await.map_err(describe)?;
    Session::start(client, connection).await
}

fn tls() -> Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS cannot be used")?;
    Ok(MakeRustlsConnect::new(
        config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth(),
    ))
}

/// Accepts every certificate, if the server has its key. Like `sslmode=prefer`, this protects only
/// against eavesdropping.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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

/// An error that the server reported.
#[derive(Debug)]
pub(crate) struct ServerError {
    text: String,
    code: SqlState,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ServerError {}

/// Converts an error, and adds the server's details and hints to its message.
fn describe(error: tokio_postgres::Error) -> anyhow::Error {
    let Some(server) = error.as_db_error() else { return anyhow::Error::new(error) };
    let more = [("DETAIL", server.detail()), ("HINT", server.hint())];
    let more: String =
        more.iter().filter_map(|(word, text)| Some(format!("; {word}: {}", (*text)?))).collect();
    let text = format!("{}: {}{more}", server.severity(), server.message());
    anyhow::Error::new(ServerError { text, code: server.code().clone() })
}

/// The SQLSTATE of an error, if the server reported the error.
pub(crate) fn code(error: &anyhow::Error) -> Option<&SqlState> {
    error.chain().find_map(|cause| cause.downcast_ref::<ServerError>()).map(|error| &error.code)
}
