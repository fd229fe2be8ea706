#!/usr/bin/env bash
# Runs a verb of partition on several machines. Start the same command on each of them:
#
#   scripts/launch_machines.sh HOST:PORT NODES NPROC train CONFIG [key.path=value ...]
#
#   HOST:PORT   where the machines meet: one of them, by a name or address that all know, and a free port on it
#   NODES       how many machines
#   NPROC       how many processes on each, one for each device
#
# Files are not copied: the repository, the configuration and the data are where this script is started, on each
# machine. Ranks are given in the order in which the machines arrive. Of several networks, gloo and NCCL take the one
# that GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name. RUN_ID tells two runs at one endpoint apart.
# PYTHON=/path/to/python uses an environment of your own.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launching.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/launching.sh"

if (($# < 5)) || [[ ! $1 =~ ^[^:].*:[0-9]{1,5}$ ]] || ! is_count "$2" || ! is_count "$3"; then
    usage
fi
endpoint=$1 host=${1%:*} nodes=$2 nproc=$3
shift 3
find_python

# The address by which this machine is known on the network that the endpoint is on; whether the endpoint is here.
# torch would look both up by the name of the machine, which many resolve to 127.0.1.1.
reached=$("$python" -c '
import ipaddress, socket, sys
try:
    there = socket.getaddrinfo(sys.argv[1].strip("[]"), 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(there[0], socket.SOCK_DGRAM) as probe:
        probe.connect(there[4])
        here = probe.getsockname()[0]
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error.strerror}")
is_loopback = ipaddress.ip_address(here).is_loopback
print("-" if is_loopback else here, "true" if is_loopback or here == there[4][0] else "false")
' "$host") || die "the endpoint $endpoint cannot be reached; every machine needs its name or address"
IFS=' ' read -r address is_host <<<"$reached"

options=(
    --rdzv-backend c10d
    --rdzv-endpoint "$endpoint"
    --rdzv-id "${RUN_ID:-partition}"
    --rdzv-conf "is_host=$is_host,join_timeout=300"
    --nnodes "$nodes"
    --nproc-per-node "$nproc"
    --max-restarts 0
)
[[ $address == - ]] || options+=(--local-addr "$address")
# As for one machine: the processes of a machine share its cores.
if [[ -z ${OMP_NUM_THREADS-} ]] && ((nproc > 1)); then
    cores=$(nproc)
    export OMP_NUM_THREADS=$((cores > nproc ? cores / nproc : 1))
fi
exec "$python" -m torch.distributed.run "${options[@]}" -m partition "$@"
