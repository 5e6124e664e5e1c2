# The jobs of the stand-in for Rails, in a real Sidekiq with GitLab's reliable fetch.
require 'sidekiq'
require 'pg'
require 'sidekiq-reliable-fetch'

sleep ENV.fetch('BOOT', '1').to_f

REDIS = { url: 'unix:///run/redis/redis-server.sock' }.freeze
Sidekiq.configure_client { |config| config.redis = REDIS }
Sidekiq.configure_server do |config|
  config.redis = REDIS
  Sidekiq::ReliableFetch.setup_reliable_fetch!(config)
end

def database = (Thread.current[:database] ||= PG.connect(dbname: 'gitlabhq_production'))

# The event of a push. A job may run twice: the second time changes nothing.
class PostReceive
  include Sidekiq::Worker

  def perform(project, sha)
    database.exec_params('INSERT INTO events (project, sha) VALUES ($1, $2) ON CONFLICT DO NOTHING', [project.to_s, sha])
  end
end

class IssueWorker
  include Sidekiq::Worker

  def perform(id) = database.exec_params('UPDATE issues SET done = true WHERE id = $1', [id])
end
