#!/usr/bin/env bash
# bundle.sh [--without-cuda] PLACE: puts what tests/gpu/check.sh needs of build/cuda into PLACE, a folder or an archive
# (NAME.tar.xz), for a machine with a GPU but without this one's packages: the programs, Open MPI, and every shared
# library but the C library's and CUDA's driver. --without-cuda: nor CUDA's own libraries and NCCL, most of a gigabyte,
# for a machine that has them. If its processor is not this one's, configure with -DSWITCHYARD_NATIVE=OFF first. An
# earlier bundle in PLACE is replaced.
set -euo pipefail
left_out='libc|libm|libmvec|libpthread|libdl|librt|libresolv|libutil|libanl|libnss_[a-z]+|ld-linux-x86-64|libcuda'
if [ "${1:-}" = --without-cuda ]; then
  left_out+='|libcudart|libcublas|libcublasLt|libnccl'
  shift
fi
[ $# = 1 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/cuda
place=$1
folder=$place
case "$place" in *.tar.xz) folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT ;; esac
[ -x "$build/switchyard" ] && [ -x "$build/test_kernels_reduce" ] || {
  echo 'bundle.sh: build first, the tests, too: cmake --preset cuda -DSWITCHYARD_TESTS=ON && cmake --build build/cuda' >&2
  exit 1
}
[ ! -e "$folder" ] || [ -x "$folder/bin/switchyard" ] || rmdir "$folder" 2>/dev/null ||
  { echo "bundle.sh: $folder: is there already, and no bundle: give a new folder, an empty one or NAME.tar.xz" >&2; exit 1; }

rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib"
cp "$build/switchyard" "$build"/test_kernels_* "$(readlink -f "$(type -P mpirun)")" "$(type -P orted)" "$folder/bin/"
mv "$folder/bin/orterun" "$folder/bin/mpirun" 2>/dev/null || true
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
[ "$folder" = "$place" ] || tar -C "$folder" -c . | xz --lzma2=preset=1,dict=64MiB >"$place"
du -sh "$place"
