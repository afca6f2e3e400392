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

# A cluster in /data, made beside its place: one whose making was cut off has a version and does not work, for ever.
cluster() {
  making=/data/initializing
  if [ -s /data/PG_VERSION ]; then
    found=$(cat /data/PG_VERSION) ours=$(postgres --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
    if [ "$found" != "$ours" ]; then
      echo "/data was written by PostgreSQL $found and this image has $ours: start the image of before, back up there," >&2
      echo "and restore into a new folder with this one (docs/backup.md)" >&2
      exit 1
    fi
    rm -rf "$making"
    return
  fi
  if [ -d "$making" ]; then
    # Of a start that was cut off: nothing was ever stored in it.
    find /data -mindepth 1 -maxdepth 1 ! -name lost+found ! -name initializing -exec rm -rf {} +
    rm -rf "$making"
  elif [ -n "$(find /data -mindepth 1 -maxdepth 1 ! -name lost+found)" ]; then
    echo "/data holds files and no cluster of PostgreSQL: restore what is missing, or empty the folder" >&2
    exit 1
  fi
  mkdir "$making"
  # The superuser has no password and comes in by the socket alone, which is in this container.
  initdb --pgdata="$making" --username=owner --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 \
    --locale=C.UTF-8 --data-checksums > /dev/null
  printf 'local all all trust\nhost all all all scram-sha-256\n' > "$making/pg_hba.conf"
  chmod 700 /data
  find "$making" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv {} /data/ \;
  # Last of all: by it a cluster is known.
  mv "$making/PG_VERSION" /data/PG_VERSION
  rmdir "$making"
}

# Stops what was started for a while; the first process of a container gets no signal that it does not ask for.
stopped() {
  pg_ctl --pgdata=/data --wait --mode=fast stop > /dev/null || true
  exit 0
}

case "$LLMOPS_SERVICE" in
  postgres)
    trap stopped INT TERM
    cluster
    # A machine that loses its power may leave the lock without a word in it, at which PostgreSQL gives up for ever.
    # Nobody else is in this container.
    [ -s /data/postmaster.pid ] || rm -f /data/postmaster.pid
    options="-c listen_addresses='' -c unix_socket_directories=/tmp"
    # After a crash it replays its log first, for as long as that takes: cut off, it would begin anew each time.
    pg_ctl --pgdata=/data --options="$options" --wait --timeout=86400 --log=/tmp/start.log start > /dev/null &
    wait $! || { cat /tmp/start.log; exit 1; }
    accounts | psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --host=/tmp --username=owner postgres
    pg_ctl --pgdata=/data --wait --mode=fast stop > /dev/null
    trap - INT TERM
    exec postgres -D /data -c listen_addresses='*' -c unix_socket_directories=/tmp \
      -c "max_connections=${POSTGRES_MAX_CONNECTIONS:-300}" -c shared_buffers=128MB -c timezone=UTC ;;
  redis) exec redis-server /etc/llmops/redis.conf ;;
  nginx)
    # The engine's own name server comes first; one of the house knows no container. nginx wants IPv6 in brackets.
    sed -n -e 's/^nameserver[[:space:]]*\([^[:space:]]*\).*/\1/p' /etc/resolv.conf | head -n 1 \
      | sed -e 's/.*:.*/[&]/' -e 's/.*/resolver & valid=5s ipv6=off;/' > /tmp/resolver.conf
    # A certificate that was renewed in its place is shown within a minute; a half of a pair, or a damaged one, never.
    pair() { cat /run/secrets/tls.crt /run/secrets/tls.key | cksum; }
    shown=$(pair)
    while sleep 60; do
      found=$(pair)
      [ "$found" != "$shown" ] && nginx -t -q -c /etc/llmops/nginx.conf || continue
      nginx -s reload -c /etc/llmops/nginx.conf && shown=$found
    done &
    exec nginx -c /etc/llmops/nginx.conf -g 'daemon off;' ;;
  prometheus)
    exec prometheus --config.file=/etc/llmops/prometheus.yml --storage.tsdb.path=/data \
      --storage.tsdb.retention.time="${PROMETHEUS_RETENTION:-30d}" \
      --storage.tsdb.retention.size="${PROMETHEUS_RETENTION_SIZE:-5GB}" --web.listen-address=0.0.0.0:9090 \
      --web.external-url=/prometheus/ --web.route-prefix=/ ;;
  *) echo "unknown LLMOPS_SERVICE $LLMOPS_SERVICE" >&2; exit 1 ;;
esac
