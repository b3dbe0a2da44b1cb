#!/usr/bin/env bash
# Installs what the other scripts need, on Debian 12. Usage: scripts/setup.sh build|test|bench
# Does nothing for what is there already; without root it says what to install.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

what=${1:-build}
packages=()
need() { # command package
    command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}

need cc gcc
if [ "$what" = test ] || [ "$what" = bench ]; then
    need tshark tshark
    need tcpdump tcpdump
    need ip iproute2
    need python3 python3
    need strace strace
    need ethtool ethtool
    need ping iputils-ping
    need curl curl
    need iperf3 iperf3
    need nfcapd nfdump
    need softflowd softflowd
    need nginx nginx-light
    need iptables-save iptables
    need pkg-config pkg-config
    need dpdk-testpmd dpdk-dev
    pkg-config --exists libdpdk 2>/dev/null || packages+=(libdpdk-dev dpdk)
fi
if [ "$what" = bench ]; then
    need valgrind valgrind
    need nft nftables
fi

if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "please install: sudo apt-get install ${packages[*]}" >&2
        exit 1
    fi
    echo "installing: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Services that come with packages need not run.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f $policy' EXIT
    fi
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "Rust is missing: see https://rustup.rs" >&2
    exit 1
fi
