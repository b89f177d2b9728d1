// An array as a .npy file: numpy.org/doc/stable/reference/generated/numpy.lib.format.html

const KINDS = { // by dtype: NumPy's name, and what holds the values; of halves the next wider one
  float64: ["<f8", Float64Array], int64: ["<i8", BigInt64Array], uint64: ["<u8", BigUint64Array],
  int32: ["<i4", Int32Array], uint32: ["<u4", Uint32Array], int16: ["<i2", Int16Array],
  uint16: ["<u2", Uint16Array], int8: ["|i1", Int8Array], uint8: ["|u1", Uint8Array], bool: ["|b1", Uint8Array],
};
const SINGLE = ["<f4", Float32Array];

/** values: nested lists of numbers or booleans; shape: of them; dtype: the output's. */
export function npy(values, shape, dtype) {
  const [name, kind] = KINDS[dtype] ?? SINGLE;
  const flat = values.flat(Infinity);
  const data = kind.from(name.endsWith("8") && name !== "<f8" ? flat.map(BigInt) : flat.map(Number));
  const told = `{'descr': '${name}', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  const length = 64 * Math.ceil((10 + told.length + 1) / 64) - 10; // so that the data is aligned
  const magic = [0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, length % 256, length >> 8];
  return new Blob([new Uint8Array(magic), `${told.padEnd(length - 1)}\n`, data]);
}
