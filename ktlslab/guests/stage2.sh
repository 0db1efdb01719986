# The rest of a guest's start, on this machine's files, and then the command. Still the first process: see init.sh.
H=/run/ktlslab
B=$H/busybox
. $H/job/settings
fail() { echo "ktlslab: $*" >/dev/console; $B reboot -f; }

$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mkdir -p /dev/pts /dev/shm
$B mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$B mount -t tmpfs -o mode=1777 tmpfs /dev/shm
$B ln -sf /proc/self/fd /dev/fd
$B ln -sf fd/0 /dev/stdin; $B ln -sf fd/1 /dev/stdout; $B ln -sf fd/2 /dev/stderr
echo ktlslab-guest >/proc/sys/kernel/hostname
$B ip link set lo up

if [ ! -d "/lib/modules/$RELEASE" ]; then
    $B mkdir -p "/lib/modules/$RELEASE"
    $B mount -o bind "$MODULES" "/lib/modules/$RELEASE" || fail "no modules at $MODULES"
fi
# Not cached: what is written is on this machine's disk when write() returns, and a follower there sees it.
if [ -n "$RW" ] && [ -n "$USER_MODE" ]; then
    # By way of a folder whose name needs no quoting in an option.
    $B mkdir -p "$RW" $H/host
    $B mount -t hostfs -o sync host $H/host && $B mount -o bind "$H/host$RW" "$RW" || fail "no share at $RW"
    $B umount $H/host
elif [ -n "$RW" ]; then
    $B mkdir -p "$RW"
    $B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none rw "$RW" || fail "no share at $RW"
fi
if [ -n "$IMAGE" ]; then
    disk=/dev/vda
    [ -z "$USER_MODE" ] || disk=/dev/ubda
    $B mkdir -p "$IMAGE"
    $B mount -t ext4 -o ro $disk "$IMAGE" || fail "no image at $IMAGE"
fi
if [ -n "$NETWORK" ]; then
    for card in /sys/class/net/*; do
        card=${card##*/}
        [ "$card" = lo ] && continue
        $B ip addr add 10.0.2.15/24 dev "$card" && $B ip link set "$card" up
    done
fi
if [ -n "$OUTBOUND" ]; then
    $B ip route add default via 10.0.2.2
    $B rm -f /etc/resolv.conf && echo nameserver 10.0.2.3 >/etc/resolv.conf
fi

# Ports, not the console: three clean byte streams, whatever the kernel prints.
tries=0
if [ -n "$USER_MODE" ]; then
    port() { echo /dev/ttyS"$1"; }
else
    port() { echo /dev/vport*p"$1"; } # numbered by the bus as well, which differs with what else is on it
fi
while [ ! -c "$(port 3)" ]; do
    tries=$((tries + 1))
    [ $tries -lt 500 ] || fail "no ports"
    $B usleep 10000
done
exec 7>"$(port 1)" 8>"$(port 2)" 9>"$(port 3)"
if [ -n "$USER_MODE" ]; then
    for number in 1 2 3; do $B stty -F "$(port $number)" raw -echo; done
fi
$B mkfifo $H/out $H/err
$B cat <$H/out >&7 & out=$!
$B cat <$H/err >&8 & err=$!
echo up >&9
$B env -i $B sh $H/job/command </dev/null >$H/out 2>$H/err 7>&- 8>&- 9>&-
code=$?
# A background process that the command left may hold its output open for ever; what it says later is nobody's.
{ $B usleep 2000000; kill $out $err; } 2>/dev/null 9>&- &
wait $out $err
# The marks tell the reader that a stream is complete: ports have no end of file, and each keeps its own order.
echo "$MARK" >&7
echo "$MARK" >&8
echo "exit $code" >&9
$B sleep 1000000
