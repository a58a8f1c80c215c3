#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# First process of a guest. It runs twice: in the RAM disk, where it loads modules and puts the
# host's root filesystem under a layer of memory; then, as "init second", on that root, where it
# runs the command and reports. /settings (KEEP_TMP, WITHOUT, and for a root filesystem below the
# host's: LOWER, where it is; CHECKOUT, ENVIRONMENT and BESIDE, what of the host is put into it)
# and /command come with the RAM disk.
# Three ports lead to the host: 1 standard output, 2 standard error, 3 progress.

home=/run/guest

first() {
    /bin/busybox --install -s /bin
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    exec >/dev/kmsg 2>&1
    while read -r module; do insmod "/modules/$module"; done </modules/order
    . /settings

    mkdir -p /below /above /root
    mount -t virtiofs -o ro hostroot /below || die "no root filesystem"
    mount -t tmpfs tmpfs /above
    layer "/below$LOWER" root /root

    mount -t proc proc /root/proc
    mount -t sysfs sysfs /root/sys
    mount -t devtmpfs devtmpfs /root/dev
    mount -t tmpfs tmpfs /root/run
    [ "$KEEP_TMP" ] || mount -t tmpfs tmpfs /root/tmp
    if [ "$CHECKOUT" ]; then
        mkdir -p "/root$CHECKOUT"
        layer "/below$CHECKOUT" checkout "/root$CHECKOUT"
        mkdir -p "/root$CHECKOUT/.venv"
        layer "/below$ENVIRONMENT" environment "/root$CHECKOUT/.venv"
        mkdir /root/beside
        layer "/below$BESIDE" beside /root/beside
    fi
    mkdir -p /root/dev/pts /root/dev/shm /root$home
    mount -t devpts devpts /root/dev/pts
    mount -t tmpfs tmpfs /root/dev/shm
    ln -s /proc/self/fd /root/dev/fd # these links are what udev makes elsewhere
    ln -s fd/0 /root/dev/stdin
    ln -s fd/1 /root/dev/stdout
    ln -s fd/2 /root/dev/stderr
    mount -t tracefs tracefs /root/sys/kernel/tracing
    mount -t bpf bpf /root/sys/fs/bpf
    mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
    for feature in $WITHOUT; do
        case $feature in
        btf) mount -t tmpfs tmpfs /root/sys/kernel/btf ;;
        *) die "cannot do without $feature" ;;
        esac
    done
    cp /bin/busybox /init /settings /command "/root$home/"
    exec switch_root /root "$home/busybox" sh "$home/init" second
}

# Shows the directory $1 at $3, with changes going to memory, where they are called $2.
layer() {
    mkdir -p "/above/$2/changed" "/above/$2/work"
    mount -t overlay -o "lowerdir=$1,upperdir=/above/$2/changed,workdir=/above/$2/work" \
        overlay "$3" || die "no layer over $1"
}

second() {
    # Every program used here is busybox's own, whatever the root filesystem offers.
    "$home/busybox" mkdir "$home/bin"
    "$home/busybox" --install -s "$home/bin"
    PATH=$home/bin
    exec </dev/null >/dev/kmsg 2>&1
    . "$home/settings"
    ip link set lo up
    hostname guest
    wait_for_ports
    # Pipes stand between the command and the ports: a port opens only once, /dev/stdout often.
    mkfifo "$home/out" "$home/err"
    cat "$home/out" >"$(port 1)" &
    out=$!
    cat "$home/err" >"$(port 2)" &
    err=$!
    exec 3>"$(port 3)"
    echo "started $(cut -d' ' -f1 /proc/uptime)" >&3
    env -i /bin/sh "$home/command" >"$home/out" 2>"$home/err" 3>&-
    status=$?
    # What the command left running in the background may keep the pipes open; it is not awaited.
    tries=0
    while [ -e "/proc/$out/fd/0" ] || [ -e "/proc/$err/fd/0" ]; do
        tries=$((tries + 1))
        [ $tries -gt 30 ] && break
        sleep 0.1
    done
    echo "ended $status $(cut -d' ' -f1 /proc/uptime)" >&3
    exec 3>&-
    poweroff -f
}

port() { echo /dev/vport*p"$1"; }

wait_for_ports() {
    tries=0
    until [ -c "$(port 1)" ] && [ -c "$(port 2)" ] && [ -c "$(port 3)" ]; do
        tries=$((tries + 1))
        [ $tries -gt 300 ] && die "no ports to the host"
        sleep 0.1
    done
}

die() {
    echo "<2>guest: $*" # at this level the kernel shows it on its console
    poweroff -f
}

PATH=/bin
"${1:-first}"
