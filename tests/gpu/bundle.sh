#!/usr/bin/env bash
# bundle.sh [--without-cuda] [--overwrite] PLACE: puts what tests/gpu/check.sh needs of build/cuda into PLACE, a new
# folder or archive (NAME.tar.xz), for a machine with a GPU but without this one's packages: the programs, Open MPI, and
# every shared library but the C library's and CUDA's driver. --without-cuda: nor CUDA's own libraries and NCCL, most of
# a gigabyte, for a machine that has them. --overwrite: replaces an earlier bundle in PLACE. Build first, for any
# processor, and for a machine without NCCL the program alone in build/cuda-without-nccl:
#   flags='-DSWITCHYARD_NATIVE=OFF -DCMAKE_CUDA_ARCHITECTURES=90 -DCMAKE_CUDA_FLAGS=-lineinfo'
#   cmake --preset cuda $flags -DSWITCHYARD_TESTS=ON && cmake --build build/cuda
#   cmake --preset cuda $flags -DCMAKE_DISABLE_FIND_PACKAGE_NCCL=ON -B build/cuda-without-nccl &&
#     cmake --build build/cuda-without-nccl --target switchyard
set -euo pipefail
left_out='libc|libm|libmvec|libpthread|libdl|librt|libresolv|libutil|libanl|libnss_[a-z]+|ld-linux-x86-64|libcuda'
overwrite=no
while [[ ${1-} == --* ]]; do
  case "$1" in
    --without-cuda) left_out+='|libcudart|libcublas|libcublasLt|libnccl' ;;
    --overwrite) overwrite=yes ;;
    *) break ;;
  esac
  shift
done
usage() { sed -n '2,11s/^# \?//p' "$0"; }
if [ "${1-}" = --help ]; then usage; exit 0; fi
[ $# = 1 ] && [[ $1 != -* ]] || { usage >&2; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/cuda
place=$1
is_empty_folder() { [ -d "$place" ] && [ -z "$(ls -A "$place")" ]; }
is_bundle() {
  if [ -d "$place" ]; then [ -x "$place/bin/switchyard" ] && [ -x "$place/bin/test_kernels_reduce" ]
  else [[ $(tar -tJf "$place" 2>/dev/null) == *./bin/test_kernels_reduce* ]]; fi
}
refuse() { echo "bundle.sh: $place: $*" >&2; exit 2; }
if [ -L "$place" ]; then refuse 'is a link: name a file or folder of its own'; fi
if [ -e "$place" ] && ! is_empty_folder; then
  [ $overwrite = yes ] || refuse 'is there already; replace it (--overwrite), or give a new folder or NAME.tar.xz'
  is_bundle || refuse 'is no bundle, which is all that --overwrite replaces: give a new folder or NAME.tar.xz'
fi
[ -x "$build/switchyard" ] && [ -x "$build/test_kernels_reduce" ] || {
  echo 'bundle.sh: build first, the tests, too: bundle.sh --help says how' >&2
  exit 1
}
without_nccl=$root/build/cuda-without-nccl
for folder in "$build" "$without_nccl"; do
  if [ -f "$folder/CMakeCache.txt" ] && ! grep -qiE '^SWITCHYARD_NATIVE:BOOL=(OFF|0|NO|FALSE)' "$folder/CMakeCache.txt"; then
    echo "bundle.sh: $folder is built for this machine's processor alone: configure it with -DSWITCHYARD_NATIVE=OFF" >&2
    exit 1
  fi
done
folder=$place archive=
case "$place" in *.tar.xz)
  folder=$(mktemp -d) archive=$place.$$.tmp
  trap 'rm -rf "$folder" "$archive"' EXIT ;;
esac

rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib"
cp "$build/switchyard" "$build"/test_kernels_* "$(readlink -f "$(type -P mpirun)")" "$(type -P orted)" "$folder/bin/"
mv "$folder/bin/orterun" "$folder/bin/mpirun" 2>/dev/null || true
if [ -x "$without_nccl/switchyard" ]; then cp "$without_nccl/switchyard" "$folder/bin/switchyard-without-nccl"
else echo 'bundle.sh: without a program for machines that have no NCCL: there is no build/cuda-without-nccl' >&2; fi
# Open MPI finds its components and texts below OPAL_PREFIX, as they lie below /usr here.
for path in pkglibdir pkgdatadir; do
  from=$(ompi_info --parsable --path $path | cut -d: -f3-)
  mkdir -p "$folder/$(dirname "${from#/usr/}")"
  cp -rL "$from" "$folder/${from#/usr/}"
done
find "$folder/bin" "$folder/lib" -type f -exec ldd {} + 2>/dev/null | awk '$3 ~ /^\// { print $3 }' | sort -u |
  grep -Ev "/($left_out)\.so" | xargs cp -Lt "$folder/lib"
strip --strip-unneeded "$folder"/bin/* "$folder"/lib/*.so* 2>/dev/null || true
# The programs have much in common, which a small window would not see. Higher presets take minutes for a tenth less.
if [ -n "$archive" ]; then
  tar -C "$folder" -c . | xz --lzma2=preset=1,dict=64MiB >"$archive"
  mv "$archive" "$place"
fi
du -sh "$place"
