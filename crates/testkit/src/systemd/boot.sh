# Boots a systemd in namespaces of its own, on a copy of an unpacked Debian that goes with it.
# Arguments: the Debian, a folder for what is written, the name of a cgroup, pairs of a folder here and a folder there.
set -eu
base=$1 work=$2 cgroup=$3
shift 3
root=$work/root
mkdir -p "$root" "$work/changes" "$work/index" "$work/cgroup"
if [ "${IN_CGROUP:-}" != 1 ]; then
    mount -t cgroup2 cgroup2 "$work/cgroup"
    mkdir -p "$work/cgroup/$cgroup"
    echo $$ >"$work/cgroup/$cgroup/cgroup.procs"
    umount "$work/cgroup"
    # What is mounted from here on shows that cgroup as the root: units of two tests never meet.
    IN_CGROUP=1 exec unshare --cgroup sh "$work/boot.sh" "$base" "$work" "$cgroup" "$@"
fi
if [ "${OWN_NETWORK:-}" = 1 ]; then ip link set lo up; fi
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/changes,workdir=$work/index" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
while [ $# -ge 2 ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done
exec chroot "$root" env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
