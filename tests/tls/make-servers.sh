#!/bin/sh
# Makes the servers' certificates for faults anew: an authority whose key is thrown away, and three certificates of one key: a
# good one for faults.test, one that has expired, and one for another name.
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
[here]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:faults.test
[elsewhere]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:elsewhere.test
CONF
: > "$dir/index"
issue() { # kind, key, subject, end, output, more
    openssl req -new -key "$2" -subj "/CN=$3" -out "$dir/request"
    kind=$1 end=$4 out=$5
    shift 5
    openssl ca -batch -notext -config "$dir/ca.conf" -extensions "$kind" -startdate 20200101000000Z -enddate "$end" \
        -in "$dir/request" -out "$out" "$@"
}
openssl ecparam -name prime256v1 -genkey -noout -out "$dir/authority-key.pem"
issue authority "$dir/authority-key.pem" 'vigie test authority of faults' 21200101000000Z faults-authority.pem \
    -selfsign -keyfile "$dir/authority-key.pem"
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out faults-key.pem
for one in 'here 21200101000000Z good' 'here 20210101000000Z expired' 'elsewhere 21200101000000Z elsewhere'; do
    set -- $one
    issue "$1" faults-key.pem "vigie $3" "$2" "faults-$3.pem" -cert faults-authority.pem -keyfile "$dir/authority-key.pem"
done
