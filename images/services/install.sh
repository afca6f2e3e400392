#!/bin/sh
# Installs one service from Debian's packages, and nothing that it only recommends.
set -eu
case "$1" in
  postgres) packages="postgresql-15" ;;
  redis) packages="redis-server" ;;
  nginx) packages="nginx-light" ;;
  prometheus) packages="prometheus prometheus-alertmanager" ;;
  *) echo "unknown SERVICE $1: postgres, redis, nginx or prometheus" >&2; exit 1 ;;
esac
export DEBIAN_FRONTEND=noninteractive
# No package starts a server while the image is built.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -q update
# shellcheck disable=SC2086
apt-get -q -y install --no-install-recommends $packages
rm -rf /var/lib/apt/lists/* /var/cache/apt /usr/sbin/policy-rc.d /var/lib/postgresql /var/log/nginx /var/lib/nginx
