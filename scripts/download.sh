# Debian packages that are unpacked, never installed. Source it after scripts/lib.sh.
# shellcheck shell=bash

PACKAGES_MAX=64 # of one download
DOWNLOAD_S=600

# What a package needs, one a line, virtual packages left out.
package_depends() { # PACKAGE
    apt-cache depends --important "$1" | sed -n 's/^ *|*\(Pre\)\?Depends: \([^<]*\)$/\2/p'
}

apt_as_user() { # ARGUMENTS...
    local user=()
    ((EUID == 0)) && user=(-o APT::Sandbox::User=root)
    apt-get "${user[@]}" -q -o Acquire::Retries=3 -o Acquire::http::Timeout=60 "$@"
}

# Downloads the packages that a folder lacks and removes from it those no longer wanted.
download_packages() { # FOLDER LOG PACKAGE...
    local folder=$1 log=$2 wanted file
    shift 2
    (($# <= PACKAGES_MAX)) || die "expected at most $PACKAGES_MAX packages, given $#"
    mkdir -p "$folder"
    wanted=$(apt_as_user download --print-uris "$@" | cut -d ' ' -f 2)
    (cd "$folder" && export -f apt_as_user &&
        logged "$log" timeout "$DOWNLOAD_S" bash -c 'apt_as_user download "$@"' download "$@")
    for file in "$folder"/*.deb; do
        grep -qxF "$(basename "$file")" <<<"$wanted" || rm -f "$file"
    done
}

deb_of() { # FOLDER PACKAGE
    local file
    for file in "$1/$2"_*.deb; do
        [[ -s $file ]] || die "package $2 was not downloaded"
        printf '%s\n' "$file"
        return
    done
}
