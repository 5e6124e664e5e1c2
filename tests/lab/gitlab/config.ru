# A stand-in for Rails on a real Puma. What the real application does and this cannot: transactions
# of many statements, its schema, connection pools, GraphQL, WebSockets, a cache in Redis.
require 'json'
require 'pg'
require 'redis'
require 'securerandom'
require 'net/http'
require 'socket'
require 'fileutils'

# The boot of Rails.
sleep ENV.fetch('BOOT', '1').to_f

class Application
  UPLOADS = '/home/git/gitlab/public/uploads'
  LFS = '/home/git/gitlab/shared/lfs-objects'
  GITALY = '/home/git/gitlab/tmp/sockets/private/gitaly.socket'
  PROJECTS = 20

  def database = (Thread.current[:database] ||= PG.connect(dbname: 'gitlabhq_production'))

  def redis = (Thread.current[:redis] ||= Redis.new(path: '/run/redis/redis-server.sock'))

  # What Sidekiq's client does.
  def queue(job, *args)
    redis.sadd('queues', ['default'])
    redis.lpush('queue:default', JSON.generate(
      'class' => job, 'args' => args, 'jid' => SecureRandom.hex(12), 'queue' => 'default', 'retry' => 25,
      'created_at' => Time.now.to_f, 'enqueued_at' => Time.now.to_f
    ))
  end

  def gitaly(path, body)
    socket = Net::BufferedIO.new(UNIXSocket.new(GITALY), read_timeout: 60)
    request = Net::HTTP::Post.new(path, 'Host' => 'gitaly', 'Connection' => 'close')
    request.body = body
    request.exec(socket, '1.1', path)
    response = Net::HTTPResponse.read_new(socket)
    response.reading_body(socket, true) { response.body }
    response
  ensure
    socket&.close
  end

  def ok(text = "ok\n") = [200, { 'Content-Type' => 'text/plain', 'Content-Length' => text.bytesize.to_s }, [text]]

  def failed(text) = [500, { 'Content-Type' => 'text/plain' }, [text]]

  # A row, and a job after its commit, as Rails' after_commit does.
  def issue(pause)
    id = database.exec_params('INSERT INTO issues (body) VALUES ($1) RETURNING id', [SecureRandom.hex(50)])[0]['id'].to_i
    sleep pause
    queue('IssueWorker', id)
    ok
  end

  # A web edit: Gitaly asks the internal API while this request waits for it.
  def edit
    project = Random.rand(PROJECTS).to_s
    response = gitaly("/commit/#{project}", SecureRandom.hex(100))
    return failed('gitaly') unless response.code == '200'

    sleep 0.02
    database.exec_params('INSERT INTO edits (project, sha) VALUES ($1, $2)', [project, response.body])
    ok
  end

  # Workhorse has received a file: a row, then the final name.
  def finalize(table, directory, temporary)
    id = database.exec("INSERT INTO #{table} DEFAULT VALUES RETURNING id")[0]['id']
    sleep 0.02
    FileUtils.mv(temporary, "#{directory}/#{id}")
    ok
  end

  def call(env)
    body = -> { env['rack.input'].read.strip }
    case env['PATH_INFO']
    when '/-/readiness' then database.exec('SELECT 1') && redis.ping && ok
    when '/internal/allowed', %r{\A/preauth/}, '/upload/authorize', '/lfs/authorize' then database.exec('SELECT 1') && ok
    when '/internal/post_receive' then queue('PostReceive', *body.().split) && ok
    when '/issue' then issue(0.01)
    when '/slow' then (sleep 2.9) && issue(0.1)
    when '/hang' then (sleep 60) && ok
    when '/edit' then edit
    when '/upload/finalize' then finalize('uploads', UPLOADS, body.())
    when '/lfs/finalize' then finalize('lfs_objects', LFS, body.())
    # A runner that asks for work.
    when '/api/v4/jobs/request' then redis.get('runner') || [204, {}, []]
    else ok("#{Process.pid}\n")
    end
  end
end

run Application.new
