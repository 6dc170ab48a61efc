#!/bin/bash
# Makes the Debian packages of server and agent from bin/, `make man` and `make completions`.
#
#   build.sh VERSION DIRECTORY       # VERSION as git describe says it
# DEB_COMPRESSION is dpkg-deb's -Z: xz by default.
#
# The same sources give the same bytes: times are those of the commit, or SOURCE_DATE_EPOCH.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$(deploy/deb/version.sh "$1")
out=$2
arch=$(go env GOARCH)
case $arch in
386) arch=i386 ;;
arm) arch=armhf ;;
ppc64le) arch=ppc64el ;;
esac
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# put MODE FILE... DESTINATION, in the package that is being made.
put() { install -D -m "$1" -t "$root/${*: -1}" "${@:2:$#-2}"; }

# Everything of one package but its own files: program, units, manual, completions, documents, control files.
common() {
	local package=$1 section=$2 short=$3 long=$4 page shell
	root=$work/$package
	put 755 "bin/$package" usr/bin
	for page in build/man/"$package"*.1; do
		# trustcast*.1 has the pages of trustcast-agent, too.
		[[ $package == trustcast && $page == */trustcast-agent* ]] && continue
		[ -e "$page" ] && put 644 "$page" usr/share/man/man1
	done
	find "$root" -name '*.1' -exec gzip -9n {} +
	completion bash "$package" usr/share/bash-completion/completions "$package"
	completion zsh "$package" usr/share/zsh/vendor-completions "_$package"
	completion fish "$package" usr/share/fish/vendor_completions.d "$package.fish"

	put 644 deploy/deb/copyright "usr/share/doc/$package"
	{
		printf '%s (%s) unstable; urgency=medium\n\n' "$package" "$version"
		printf '  * CHANGELOG.md, beside this file, says what changes for those who run it.\n\n'
		printf ' -- %s  %s\n' "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
	} | gzip -9n >"$root/usr/share/doc/$package/changelog.gz"
	gzip -9nc CHANGELOG.md >"$root/usr/share/doc/$package/CHANGELOG.md.gz"
	put 644 "deploy/deb/$package/$package" usr/share/lintian/overrides

	mkdir -p "$root/DEBIAN"
	cat >"$root/DEBIAN/control" <<-EOF
		Package: $package
		Version: $version
		Architecture: $arch
		Maintainer: $maintainer
		Section: $section
		Priority: optional
		Homepage: https://github.com/trustcast/trustcast
		Description: $short
		$long
	EOF
	for file in postinst prerm postrm; do
		install -m 755 "deploy/deb/$package/$file" "$root/DEBIAN/$file"
	done
}
maintainer='The trustcast authors <trustcast@users.noreply.github.com>'

# completion SHELL PROGRAM DIRECTORY NAME
completion() {
	local from=build/completions/$1/$4
	[ -e "$from" ] || return 0
	install -D -m 644 "$from" "$root/$3/$4"
}

finish() {
	local package=$1
	(cd "$root" && find etc -type f -printf '/%p\n' 2>/dev/null | sort) >"$root/DEBIAN/conffiles"
	chmod 644 "$root/DEBIAN/conffiles"
	(cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
	printf 'Installed-Size: %s\n' "$(du -ks --apparent-size --exclude=DEBIAN "$root" | cut -f 1)" >>"$root/DEBIAN/control"
	dpkg-deb --root-owner-group --build -Z"${DEB_COMPRESSION:-xz}" "$root" "$out/${package}_${version}_$arch.deb" >/dev/null
	echo "$out/${package}_${version}_$arch.deb"
}

common trustcast net 'Docker registry whose CA reaches every host and rotates' "\
 Runs a Docker registry with TLS from its own certificate authority, and users.
 It knows the fleet of Docker hosts that trust this CA, and rotates it without
 a failed pull: the switch waits for evidence from every host.
 .
 The agent for the hosts is in the package trustcast-agent."
put 644 deploy/systemd/trustcast{.service,-registry.socket,-grpc.socket,-http.socket} lib/systemd/system
# Root alone reads the settings: secrets may be among them.
put 640 deploy/deb/trustcast/config.yaml etc/trustcast
finish trustcast

common trustcast-agent net 'brings the CA of a Docker registry to this host' "\
 Joins this host to the fleet of a trustcast server, installs the CA of its
 registry where Docker, podman and containerd read it, keeps it right, and
 follows every rotation. It needs no access to Docker's socket.
 .
 Purging the package takes all of it away again; removing it leaves the CA."
put 644 deploy/systemd/trustcast-agent.service lib/systemd/system
install -D -m 640 deploy/deb/trustcast-agent/default "$root/etc/default/trustcast-agent"
# dpkg removes it at the end, unless it has become somebody else's.
mkdir -p "$root/etc/docker"
install -m 644 deploy/deb/trustcast-agent/triggers "$root/DEBIAN/triggers"
finish trustcast-agent
