#!/bin/busybox sh
# A guest's first process: load what reaches this machine's files, lay a throw-away layer over them, and go there.
# A restart or a panic ends the guest at once (-no-reboot or noreboot, panic=-1): one guest that cannot come up says why and is never
# waited for.
B=/bin/busybox
. /job/settings
fail() { echo "ktlslab: $*" >/dev/console; $B reboot -f; }

$B mount -t devtmpfs dev /dev || fail "no devtmpfs"
exec </dev/console >/dev/console 2>&1
while read -r module; do
    $B insmod "/modules/$module" || fail "module $module does not load"
done </modules/order
while read -r module; do
    $B insmod "/modules/$module" 2>/dev/null
done </modules/optional

# Read-only in QEMU as well: the layer on top is for the guest's programs, not for this machine's safety.
if [ -n "$USER_MODE" ]; then
    $B mount -t hostfs -o ro root /lower || fail "no root share"
else
    $B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro root /lower || fail "no root share"
fi
$B mount -t tmpfs -o mode=755 tmpfs /upper && $B mkdir /upper/data /upper/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /newroot || fail "no overlay"
H=/newroot/run/ktlslab
$B mkdir -p $H /newroot/dev /newroot/proc /newroot/sys /newroot/tmp
$B mount -t tmpfs -o mode=755 tmpfs $H
$B cp -r /bin/busybox /stage2.sh /job $H || fail "no room for the guest's own files"
$B mount --move /dev /newroot/dev
exec $B switch_root /newroot /run/ktlslab/busybox sh /run/ktlslab/stage2.sh
