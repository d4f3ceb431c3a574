#!/bin/bash
# Makes what must not stand in a repository: passwords, the keys that sign tokens and seal contexts, a certificate. What is there stays.
set -eu

proxy=10001     # the proxy's user in its image

random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# The database's own user reads it, whatever its number is in that image; nobody else has the volume.
[ -e /superuser/password ] || random >/superuser/password
chmod 444 /superuser/password

cd /secrets
[ -e jwt.key ] || random >jwt.key
[ -e admin.token ] || random >admin.token
[ -e seal.key ] || echo "1 $(random)" >seal.key
[ -e shard_1.password ] || random >shard_1.password
if [ ! -e server.crt ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout server.key -out server.crt
fi
chown "$proxy:$proxy" ./*
chmod 400 ./*
