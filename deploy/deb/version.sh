#!/bin/sh
# The Debian version of what git describe says: a tag is a release, commits after it are later, commits before the
# first are earlier than 0.1.0.
#
#   version.sh v1.2.3-4-gabc1234   ->  1.2.3+git4.abc1234
set -eu
described=$1
local=''
case $described in
*-dirty) described=${described%-dirty} local=+dirty ;;
esac
day=$(git show --no-patch --format=%cd --date=format:%Y%m%d "$described" 2>/dev/null | tail -n 1) || day=0
case $described in
v[0-9]*-*-g*)
	commit=${described##*-g} rest=${described%-g*}
	base=${rest%-*} count=${rest##*-}
	printf '%s+git%s.%s%s\n' "$(printf %s "${base#v}" | tr - '~')" "$count" "$commit" "$local"
	;;
# A tag of a release to come, v1.2.3-rc.1, is before v1.2.3.
v[0-9]*) printf '%s%s\n' "$(printf %s "${described#v}" | tr - '~')" "$local" ;;
*[!0-9a-f]*) printf '0.1.0~%s%s\n' "$(printf %s "$described" | tr -c '0-9A-Za-z.+~\n' .)" "$local" ;;
*) printf '0.1.0~git%s.%s%s\n' "$day" "$described" "$local" ;;
esac
