#!/usr/bin/env bash
# What the review's tests need beside Python: a browser, a PostgreSQL server, nginx, and two tools from npm (axe-core
# looks for accessibility faults, typescript checks the page's types). Tests skip what is not here. Run as root on Debian.
set -euo pipefail
cd "$(dirname "$0")/../../.."
wanted=()
[ -x /usr/bin/chromium ] || wanted+=(chromium)
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || wanted+=(postgresql)
command -v npm >/dev/null || wanted+=(npm)
[ -x /usr/sbin/nginx ] || wanted+=(nginx-light)
if [ ${#wanted[@]} -gt 0 ]; then
    apt-get update -qq
    # Debian's postgresql starts a server of its own otherwise; the tests run theirs in a temporary folder.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}"
fi
npm install --prefix .venv/node --no-save --no-audit --no-fund --silent axe-core@4 typescript@5
