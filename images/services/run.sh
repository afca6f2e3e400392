#!/bin/sh
# Runs the service of this image in the foreground, or (`health`) says by its exit code whether it answers.
# Everything that it writes is under /data and /tmp; what is secret comes from files under /run/secrets.
set -eu
if [ "${1:-}" = health ]; then
  case "$LLMOPS_SERVICE" in
    postgres) exec pg_isready -q -h 127.0.0.1 ;;
    redis) exec redis-cli -t 3 ping > /dev/null ;;
    nginx) exec nginx -t -q -c /etc/llmops/nginx.conf ;;
    prometheus) exec promtool query instant http://127.0.0.1:9090 vector\(1\) > /dev/null ;;
  esac
fi

# A role and a database of its name for every line of the password file; safe to repeat: passwords are those of the file.
accounts() {
  while IFS=: read -r _host _port database user password; do
    [ -n "$user" ] || continue
    printf "SELECT 'CREATE ROLE %s LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%s')\\\\gexec\n" \
      "$user" "$user"
    printf "ALTER ROLE %s PASSWORD '%s';\n" "$user" "$password"
    printf "SELECT 'CREATE DATABASE %s OWNER %s' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '%s')\\\\gexec\n" \
      "$database" "$user" "$database"
    printf 'REVOKE ALL ON DATABASE %s FROM PUBLIC;\n' "$database"
  done < /run/secrets/pgpass
}

case "$LLMOPS_SERVICE" in
  postgres)
    if [ ! -s /data/PG_VERSION ]; then
      # The superuser has no password and comes in by the socket alone, which is in this container.
      initdb --pgdata=/data --username=owner --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 \
        --locale=C.UTF-8 --data-checksums > /dev/null
      printf 'local all all trust\nhost all all all scram-sha-256\n' > /data/pg_hba.conf
    fi
    options="-c listen_addresses='' -c unix_socket_directories=/tmp"
    pg_ctl --pgdata=/data --options="$options" --wait --log=/tmp/start.log start > /dev/null || { cat /tmp/start.log; exit 1; }
    accounts | psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --host=/tmp --username=owner postgres
    pg_ctl --pgdata=/data --wait --mode=fast stop > /dev/null
    exec postgres -D /data -c listen_addresses='*' -c unix_socket_directories=/tmp \
      -c "max_connections=${POSTGRES_MAX_CONNECTIONS:-300}" -c shared_buffers=128MB -c timezone=UTC ;;
  redis) exec redis-server /etc/llmops/redis.conf ;;
  nginx)
    # The engine's own name server comes first; one of the house knows no container.
    sed -n 's/^nameserver \(.*\)/resolver \1 valid=5s ipv6=off;/p' /etc/resolv.conf | head -n 1 > /tmp/resolver.conf
    exec nginx -c /etc/llmops/nginx.conf -g 'daemon off;' ;;
  prometheus)
    exec prometheus --config.file=/etc/llmops/prometheus.yml --storage.tsdb.path=/data \
      --storage.tsdb.retention.time="${PROMETHEUS_RETENTION:-30d}" --web.listen-address=0.0.0.0:9090 \
      --web.external-url=/prometheus/ --web.route-prefix=/ ;;
  *) echo "unknown LLMOPS_SERVICE $LLMOPS_SERVICE" >&2; exit 1 ;;
esac
