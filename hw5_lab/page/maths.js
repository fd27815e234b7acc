// The maths that the pages of all three models share: numbers out of the page, networks, random numbers. All pure.
"use strict";

// ------------------------------------------------------------------------------------------- numbers out of the page

/** The bytes of a base64 text. */
function bytesOf(text) {
  const raw = atob(text),
    bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** A packed array {type, shape, data} of explore.py's pack() as a typed array. */
function unpack({ type, shape, data, scale }) {
  const bytes = bytesOf(data),
    size = shape.reduce((product, length) => product * length, 1);
  if (type === "u1") return bytes;
  if (type === "f4") return new Float32Array(bytes.buffer);
  const values = type === "bits" ? new Uint8Array(size) : new Float32Array(size);
  if (type === "bits") for (let i = 0; i < size; i++) values[i] = (bytes[i >> 3] >> (7 - (i & 7))) & 1;
  if (type === "f2") {
    // the bits of a float16 as those of the float32 2^-112 times as large
    const words = new Uint32Array(values.buffer),
      halves = new Uint16Array(bytes.buffer);
    for (let i = 0; i < size; i++) words[i] = ((halves[i] & 0x8000) << 16) | ((halves[i] & 0x7fff) << 13);
    for (let i = 0; i < size; i++) values[i] *= 2 ** 112;
  }
  if (type === "i1") {
    // a byte for each weight, and one scale for each row
    const scales = unpack(scale),
      width = size / shape[0],
      signed = new Int8Array(bytes.buffer);
    for (let i = 0, row = 0; row < shape[0]; row++)
      for (const end = i + width; i < end; i++) values[i] = signed[i] * scales[row];
  }
  return values;
}

// -------------------------------------------------------------------------------------------------- small functions

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sum = (values) => values.reduce((total, value) => total + value, 0);
const extent = (values) => values.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
const range = (count) => Array.from({ length: count }, (_, i) => i);
/** (1 - t) a + t b of two arrays. */
const mix = (a, b, t) => Float64Array.from(a, (value, i) => (1 - t) * value + t * b[i]);
/** The n equal parts of an array. */
const slices = (all, n, size = all.length / n) => range(n).map((i) => all.subarray(i * size, (i + 1) * size));
const joined = (parts) => Float64Array.from(parts.flatMap((part) => [...part]));

/** log of the sum of exp(values), without overflow. */
function logSumExp(values) {
  let largest = -Infinity,
    total = 0;
  for (const value of values) if (value > largest) largest = value;
  for (const value of values) total += Math.exp(value - largest);
  return largest + Math.log(total);
}

/** Uniform numbers in [0,1) from a seed (mulberry32): the same seed shows the same picture everywhere. */
function uniforms(seed) {
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b); // neighbouring seeds must not start alike
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` standard normal numbers from a seed (Box and Muller). */
function normals(seed, count) {
  const next = uniforms(seed),
    values = new Float64Array(count);
  for (let i = 0; i < count; i++) values[i] = Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return values;
}

// --------------------------------------------------------------------------------------------------------- networks

/** y [n,outputs] = x [n,inputs] W^T + b. Eight sums at once: a number that was read is used more than once. */
function linear({ weight, bias }, x, n) {
  const outputs = bias.length,
    inputs = weight.length / outputs;
  const y = new Float64Array(n * outputs),
    rows = n - (n % 8),
    eights = outputs - (outputs % 8);
  const eight = new Float64Array(8 * inputs); // the same input of eight rows lies side by side
  for (let row = 0; row < rows; row += 8) {
    for (let k = 0; k < 8 * inputs; k++) eight[k] = x[(row + (k & 7)) * inputs + (k >> 3)];
    for (let o = 0, w = 0; o < outputs; o++) {
      let a = 0,
        b = 0,
        c = 0,
        d = 0,
        e = 0,
        f = 0,
        g = 0,
        h = 0;
      for (let i = 0; i < 8 * inputs; i += 8, w++) {
        const v = weight[w];
        a += v * eight[i];
        b += v * eight[i + 1];
        c += v * eight[i + 2];
        d += v * eight[i + 3];
        e += v * eight[i + 4];
        f += v * eight[i + 5];
        g += v * eight[i + 6];
        h += v * eight[i + 7];
      }
      const s = bias[o],
        at = row * outputs + o;
      y[at] = a + s;
      y[at + outputs] = b + s;
      y[at + 2 * outputs] = c + s;
      y[at + 3 * outputs] = d + s;
      y[at + 4 * outputs] = e + s;
      y[at + 5 * outputs] = f + s;
      y[at + 6 * outputs] = g + s;
      y[at + 7 * outputs] = h + s;
    }
  }
  for (let row = rows; row < n; row++) {
    // the last rows: eight outputs at once, then those that are left
    const one = x.subarray(row * inputs, (row + 1) * inputs),
      at = row * outputs;
    for (let o = 0; o < eights; o += 8) {
      const k = o * inputs,
        l = k + inputs,
        m = l + inputs,
        p = m + inputs,
        q = p + inputs,
        r = q + inputs;
      let a = 0,
        b = 0,
        c = 0,
        d = 0,
        e = 0,
        f = 0,
        g = 0,
        h = 0;
      for (let i = 0, s = r + inputs, t = s + inputs; i < inputs; i++, s++, t++) {
        const v = one[i];
        a += v * weight[k + i];
        b += v * weight[l + i];
        c += v * weight[m + i];
        d += v * weight[p + i];
        e += v * weight[q + i];
        f += v * weight[r + i];
        g += v * weight[s];
        h += v * weight[t];
      }
      [a, b, c, d, e, f, g, h].forEach((value, i) => {
        y[at + o + i] = value + bias[o + i];
      });
    }
    for (let o = eights; o < outputs; o++) {
      y[at + o] = bias[o];
      for (let i = 0; i < inputs; i++) y[at + o] += weight[o * inputs + i] * one[i];
    }
  }
  return y;
}

/** A convolution of x [n,channels,high,wide]; its pixels first move apart by `spread`, with zeros between (layers.py). */
function convolve(op, { data, shape: [n, channels, high, wide] }) {
  const { weight, bias, kernel, stride, padding, spread, extra } = op,
    outputs = bias.length,
    size = kernel * kernel;
  const extent = (length) => (length - 1) * spread + 1 + extra + 2 * padding;
  const tall = extent(high),
    broad = extent(wide),
    rows = Math.floor((tall - kernel) / stride) + 1,
    columns = Math.floor((broad - kernel) / stride) + 1;
  const planes = new Float64Array(channels * tall * broad),
    y = new Float64Array(n * outputs * rows * columns);
  for (let image = 0, end = 0; image < n; image++) {
    for (let line = 0; line < channels * high; line++) {
      let to = (Math.floor(line / high) * tall + padding + (line % high) * spread) * broad + padding,
        from = (image * channels * high + line) * wide;
      for (let col = 0; col < wide; col++, to += spread) planes[to] = data[from++];
    }
    for (let o = 0; o < outputs; o++) {
      const start = end;
      y.fill(bias[o], start, (end += rows * columns));
      for (let c = 0; c < channels; c++) {
        const w = weight.subarray((o * channels + c) * size, (o * channels + c + 1) * size),
          plane = c * tall * broad;
        if (kernel === 3 && stride === 1) {
          // the usual kernel: nine products at once, of three new pixels and six that are kept from the place before
          const [a, b, d, e, f, g, h, k, l] = w;
          for (let row = 0, at = start; row < rows; row++) {
            let p = plane + row * broad,
              q = p + broad,
              r = q + broad; // the three rows under the kernel
            let p0 = planes[p++],
              p1 = planes[p++],
              q0 = planes[q++],
              q1 = planes[q++],
              r0 = planes[r++],
              r1 = planes[r++];
            for (const stop = at + columns; at < stop; at++) {
              const p2 = planes[p++],
                q2 = planes[q++],
                r2 = planes[r++];
              y[at] += a * p0 + b * p1 + d * p2 + e * q0 + f * q1 + g * q2 + h * r0 + k * r1 + l * r2;
              p0 = p1;
              p1 = p2;
              q0 = q1;
              q1 = q2;
              r0 = r1;
              r1 = r2;
            }
          }
        } else
          for (let k = 0; k < size; k++)
            for (let row = 0, at = start; row < rows; row++) {
              let p = plane + (row * stride + Math.floor(k / kernel)) * broad + (k % kernel);
              for (const stop = at + columns; at < stop; at++, p += stride) y[at] += w[k] * planes[p];
            }
      }
    }
  }
  return { data: y, shape: [n, outputs, rows, columns] };
}

/** Every pixel of x `factor` times in both directions. */
function upsample({ factor }, { data, shape: [n, channels, high, wide] }) {
  const columns = wide * factor,
    y = new Float64Array(data.length * factor * factor);
  for (let i = 0; i < y.length; i++)
    y[i] = data[Math.floor(i / columns / factor) * wide + Math.floor((i % columns) / factor)];
  return { data: y, shape: [n, channels, high * factor, columns] };
}

/** The largest, or the mean, of the pixels in each window. */
function pool({ how, size, stride }, { data, shape: [n, channels, high, wide] }) {
  const rows = Math.floor((high - size) / stride) + 1,
    columns = Math.floor((wide - size) / stride) + 1;
  const y = new Float64Array(n * channels * rows * columns).fill(how === "max" ? -Infinity : 0);
  for (let i = 0; i < y.length; i++) {
    const col = i % columns,
      row = Math.floor(i / columns) % rows,
      plane = Math.floor(i / columns / rows);
    for (let k = 0; k < size * size; k++) {
      const value = data[(plane * high + row * stride + Math.floor(k / size)) * wide + col * stride + (k % size)];
      y[i] = how === "max" ? Math.max(y[i], value) : y[i] + value / size / size;
    }
  }
  return { data: y, shape: [n, channels, rows, columns] };
}

const BINARY = { add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b };

/** f of each pair of numbers of a and b, whose shapes are aligned at their ends; a length of 1 fits every other. */
function binary(f, a, b) {
  const depth = Math.max(a.shape.length, b.shape.length),
    of = (x, d) => x.shape[x.shape.length - depth + d] || 1;
  const shape = range(depth).map((d) => Math.max(of(a, d), of(b, d))),
    length = shape.reduce((x, y) => x * y, 1);
  const y = new Float64Array(length);
  const index = (x) => {
    // the place in x of the i-th result
    if (x.data.length === length) return (i) => i;
    if (x.data.length === 1) return () => 0;
    const steps = [];
    for (let d = depth - 1, step = 1, size = 1; d >= 0; size *= shape[d], step *= of(x, d), d--)
      if (of(x, d) > 1) steps.push([size, shape[d], step]);
    return (i) => {
      let at = 0;
      for (const [size, many, step] of steps) at += (Math.floor(i / size) % many) * step;
      return at;
    };
  };
  const first = index(a),
    second = index(b);
  for (let i = 0; i < length; i++) y[i] = f(a.data[first(i)], b.data[second(i)]);
  return { data: y, shape };
}

/** Arrays side by side along a dimension. */
function concatenate({ dim }, parts) {
  const shape = [...parts[0].shape],
    outer = shape.slice(0, dim).reduce((x, y) => x * y, 1);
  shape[dim] = sum(parts.map((part) => part.shape[dim]));
  const y = new Float64Array(sum(parts.map((part) => part.data.length)));
  let at = 0;
  for (let i = 0; i < outer; i++)
    for (const { data } of parts) {
      const length = data.length / outer;
      y.set(data.subarray(i * length, (i + 1) * length), at);
      at += length;
    }
  return { data: y, shape };
}

/** Part of an array along a dimension. */
function slice({ dim, start, length }, { data, shape }) {
  const inner = shape.slice(dim + 1).reduce((x, y) => x * y, 1),
    step = shape[dim] * inner,
    cut = [...shape];
  cut[dim] = length;
  const part = (i) => data.subarray(i * step + start * inner, i * step + (start + length) * inner);
  return { data: joined(range(data.length / step).map(part)), shape: cut };
}

const MAPS = {
  // functions of one number, with PyTorch's parameters
  tanh: Math.tanh,
  sigmoid,
  exp: Math.exp,
  log: Math.log,
  abs: Math.abs,
  sqrt: Math.sqrt,
  cos: Math.cos,
  sin: Math.sin,
  relu: (x) => Math.max(x, 0),
  neg: (x) => -x,
  reciprocal: (x) => 1 / x,
  silu: (x) => x * sigmoid(x),
  pow: (x, k) => x ** k,
  softplus: (x, beta = 1, threshold = 20) => (beta * x > threshold ? x : softplus(beta * x) / beta),
  leaky_relu: (x, slope = 0.01) => (x < 0 ? slope * x : x),
  elu: (x, alpha = 1, scale = 1) => scale * (x < 0 ? alpha * Math.expm1(x) : x),
  clamp: (x, low, high) => Math.min(high ?? Infinity, Math.max(low ?? -Infinity, x)),
};

/** One operation of a program, on its values {data, shape}. */
function operate(op, [x, y], all) {
  const n = x?.shape[0];
  if (op.op === "constant") return op;
  if (op.op === "linear") return { data: linear(op, x.data, n), shape: [n, op.bias.length] };
  if (op.op === "conv") return convolve(op, x);
  if (op.op === "upsample") return upsample(op, x);
  if (op.op === "pool") return pool(op, x);
  if (op.op === "reshape") return { data: x.data, shape: [n, ...op.shape] };
  if (op.op === "slice") return slice(op, x);
  if (op.op === "cat") return concatenate(op, all);
  if (op.op in BINARY) return binary(BINARY[op.op], x, y);
  const f = MAPS[op.op],
    [a, b] = op.numbers.map((value) => value ?? undefined),
    data = new Float64Array(x.data.length);
  for (let i = 0; i < data.length; i++) data[i] = f(x.data[i], a, b);
  return { data, shape: x.shape };
}

/** A packed program of layers.py, ready for run(). */
function unpackProgram(program) {
  const read = (op) =>
    op.op === "constant"
      ? { op: op.op, data: unpack(op.value), shape: op.value.shape }
      : op.weight
        ? { ...op, weight: unpack(op.weight), bias: unpack(op.bias) }
        : op;
  return { ...program, ops: program.ops.map(read) };
}

/** The outputs of a program, arrays, for inputs {data, shape} whose first dimension counts the images. */
function run({ ops, outputs }, ...inputs) {
  const values = [...inputs];
  for (const op of ops) {
    const used = (op.of || []).map((number) => values[number]);
    values.push(operate(op, used, used));
  }
  return outputs.map((number) => values[number].data);
}

/** The output of a program with one input, n rows x of numbers. */
const forward = (program, x, n = 1, shape = [x.length / n]) =>
  run(program, { data: Float64Array.from(x), shape: [n, ...shape] })[0];
