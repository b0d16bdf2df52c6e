#!/bin/sh
# Makes the client certificates of this directory anew: an authority whose key is thrown away, and two clients of it.
# `openssl ca` is used because it can say when a certificate begins.
set -eu
cd "$(dirname "$0")"
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
cat > "$dir/ca.conf" <<CONF
[ca]
default_ca = one
[one]
database = $dir/index
new_certs_dir = $dir
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[client]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = clientAuth
CONF
: > "$dir/index"
issue() { # kind, key, subject, output, more
    openssl req -new -key "$2" -subj "/CN=$3" -out "$dir/request"
    kind=$1 out=$4
    shift 4
    openssl ca -batch -notext -config "$dir/ca.conf" -extensions "$kind" -startdate 20200101000000Z \
        -enddate 21200101000000Z -in "$dir/request" -out "$out" "$@"
}
openssl ecparam -name prime256v1 -genkey -noout -out "$dir/authority-key.pem"
issue authority "$dir/authority-key.pem" 'vigie test client authority' client-authority.pem \
    -selfsign -keyfile "$dir/authority-key.pem"
openssl ecparam -name prime256v1 -genkey -noout -out client-key-sec1.pem
openssl pkcs8 -topk8 -nocrypt -in client-key-sec1.pem -out client-key.pem
issue client client-key.pem 'vigie one' client.pem -cert client-authority.pem -keyfile "$dir/authority-key.pem"
openssl genrsa -traditional -out client-rsa-key.pem 2048
issue client client-rsa-key.pem 'vigie two' client-rsa.pem -cert client-authority.pem -keyfile "$dir/authority-key.pem"
