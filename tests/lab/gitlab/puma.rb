# As GitLab's: cluster mode, preloaded, and no queue of requests before the workers.
rackup '/opt/gitlab-parts/config.ru'
bind 'unix:///home/git/gitlab/tmp/sockets/gitlab.socket'
workers 2
# As Omnibus has it: as many at least as at most. Each thread of the stand-in for Rails has a
# connection to PostgreSQL of its own, and one that Puma ends would leave it open.
threads 8, 8
queue_requests false
preload_app!
worker_timeout 60
wait_for_less_busy_worker 0.001
environment 'production'
tag 'gitlab-puma-worker'
