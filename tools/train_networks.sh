#!/bin/sh
# The four networks that come with the package, each from one command.
#   tools/train_networks.sh DATA VGG OUT [NAME ...]
# DATA holds the folders of data sets that the commands name; VGG is a file of VGG-19's weights, OUT gets a folder for each
# network. STEPS=30000 PRESET=small PRECISION=bf16 change all of them; for a GPU, TIMES=4 makes the batches four times as
# large and WORKERS=3 prepares them in processes, MORE=--compile adds options, FROM=FOLDER starts from what this wrote there
# before. An interrupted run goes on where it stopped.
set -eu
data=$1 vgg=$2 out=$3
shift 3
steps=${STEPS:-30000} preset=${PRESET:-small} precision=${PRECISION:-bf16} times=${TIMES:-1} workers=${WORKERS:-0}
photographs="--train $data/photographs --train $data/bsds_train"
rain="--streaks $data/garg_streaks --pairs $data/rain_heavy_train/rain $data/rain_heavy_train/norain"
glass="--pairs $data/plnet_real/blended $data/plnet_real/transmission_layer"

train() { # NAME OPTIONS
    name=$1 run=$out/$1
    shift
    resume=$([ -e "$run/checkpoint.pt" ] && echo --resume || true)
    # shellcheck disable=SC2086
    python -m dmgn train "$@" --preset "$preset" --steps "$steps" --precision "$precision" --clean-share 0.1 --vgg "$vgg" \
        --validate-every 1000 --workers "$workers" --seed 0 --out "$run" \
        ${FROM:+--model "$FROM/$name/best"} ${MORE:-} $resume || { echo "$name failed" >&2; exit 1; }
}

depths() { # photographs with their true depth, from Middlebury's stereo scenes
    [ -d "$out/depths" ] || python -c "import sys; from dmgn.haze import middlebury_scenes, write_depths
write_depths(middlebury_scenes(sys.argv[1]), sys.argv[2])" "$data/middlebury_rgbd" "$out/depths"
}

mkdir -p "$out"
[ $# -gt 0 ] || set -- small-any small-deraining small-dereflection small-dehazing
for network in "$@"; do
    # shellcheck disable=SC2086
    case $network in
        small-deraining) train $network --task deraining $photographs $rain --pair-share 0.05 --crop 64 --batch $((8 * times)) ;;
        small-dereflection)
            train $network --task reflection $photographs $glass --pair-share 0.3 --hold-out-pairs 20 \
                --crop 96 --short-sides 128 320 --batch $((4 * times)) ;;
        small-dehazing)
            depths
            train $network --task dehazing $photographs --train "$out/depths" --depth "$out/depths" \
                --train-share 0.5 --train-share 0.3 --train-share 0.2 --crop 128 --short-sides 130 320 --batch $((2 * times)) ;;
        small-any)
            train $network --task any $photographs $rain $glass --pair-share 0.03 --pair-share 0.12 --hold-out-pairs 20 \
                --crop 96 --short-sides 128 320 --batch $((4 * times)) ;;
        *) echo "no network $network: expected small-any, small-deraining, small-dereflection or small-dehazing" >&2; exit 2 ;;
    esac
done
