"""Sends frames into two interfaces, one after the other, and prints what comes back.

Lines of standard input are "a0 HEX" or "b0 HEX". After each frame it waits for what comes out, for at most the
milliseconds of the first argument. Lines of standard output are "NUMBER INTERFACE HEX": after the how-manieth frame (from
0), where, and what.
"""
import select
import socket
import sys
import time

OUTGOING = 4  # PACKET_OUTGOING: what we have sent ourselves

wait = float(sys.argv[1]) / 1000
sockets = {}
for name in ("a0", "b0"):
    each = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    each.bind((name, 0))
    each.setblocking(False)
    sockets[name] = each


def received(number, until, stop_at_first):
    while True:
        left = until - time.monotonic()
        ready, _, _ = select.select(list(sockets.values()), [], [], max(left, 0))
        for each in ready:
            frame, (name, _, kind, _, _) = each.recvfrom(65536)
            if kind != OUTGOING and frame[12:14] == b"\x08\x00":
                print(number, name, frame.hex())
                if stop_at_first:
                    return
        if not ready:
            return


number = 0
for line in sys.stdin:
    name, text = line.split()
    sockets[name].send(bytes.fromhex(text))
    received(number, time.monotonic() + wait, True)
    number += 1
received(number, time.monotonic() + 0.2, False)
