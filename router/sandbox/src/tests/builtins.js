// Calls every function that a transform can reach, with values that are made to keep it busy. A row names the function, what it is
// called on, and its arguments.
const found = [];
const seen = new Set();
function walk(value, path) {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value)) return;
  seen.add(value);
  if (typeof value === 'function') found.push([path, value]);
  for (const key of Reflect.ownKeys(value)) {
    const {value: inner, get, set} = Reflect.getOwnPropertyDescriptor(value, key);
    const name = `${path}.${String(key)}`;
    walk(inner, name);
    walk(get, `get ${name}`);
    walk(set, `set ${name}`);
  }
  walk(Reflect.getPrototypeOf(value), `${path}.__proto__`);
}
walk(globalThis, 'globalThis');
for (const [path, value] of Object.entries({
  array: [].values(), map: new Map().entries(), set: new Set().values(), text: 'x'[Symbol.iterator](), matches: 'x'.matchAll(/x/g),
  generator: function* () {}, generated: (function* () {})(), asyncGenerator: async function* () {}, asyncFunction: async () => {},
  asyncGenerated: (async function* () {})(), helper: [1].values().map(x => x), wrapped: Iterator.from({next() {}}),
  segments: new Intl.Segmenter().segment('x'), segment: new Intl.Segmenter().segment('x')[Symbol.iterator](),
  withResolvers: Promise.withResolvers(), revocable: Proxy.revocable({}, {}),
})) walk(value, path);

const endless = () => ({__proto__: Iterator.prototype, next: Object, return: Object, [Symbol.iterator]: endless});
// Made when it is asked for: some are large.
const hostile = [
  () => ({length: 2 ** 53 - 1}),
  () => ({length: 2 ** 32 - 1, 0: 1}),
  () => new Array(2 ** 32 - 1),
  () => { let asked = 0; return {get length() { return asked++ > 0 ? 2 ** 53 - 1 : 1; }}; },
  () => ({length: {valueOf: () => 2 ** 53 - 1}, [Symbol.isConcatSpreadable]: true}),
  () => new Proxy([], {get: (target, key) => (key === 'length' ? 2 ** 32 - 1 : target[key])}),
  () => ({raw: {length: 2 ** 53 - 1}, size: 2 ** 53 - 1, has: Boolean, keys: () => ({next: Object})}),
  () => 'a'.repeat(2 ** 24),
  () => 'b' + 'a'.repeat(2 ** 23),
  () => 7n ** 10000n,
  () => [new Array(2 ** 32 - 1)],
  () => Object.create({length: 2 ** 53 - 1}),
];
// What ends for certain only when V8 stops it: these are asked of the helpers of iterators alone.
const plain = [() => undefined, () => [3, 1, 2], () => 'abc', () => new Set([1]), () => new Map([[1, 1]]), () => /a/g, () => ({}), () => 2 ** 53, () => 9n, () => Array, () => [1].values(), () => new Date(0), () => new Intl.NumberFormat()];
const cases = [];
for (const h of hostile) {
  cases.push(() => [h(), []], () => [h(), [1]], () => [h(), [Boolean, 0]], () => [h(), [h(), h()]]);
}
for (const p of plain) {
  for (const h of hostile) cases.push(() => [p(), [h()]], () => [p(), ['a', h()]], () => [p(), [h(), Boolean]]);
}
const constructions = [];
for (const h of hostile) constructions.push(() => [h()], () => ['a', h()], () => [h(), h()]);
cases.push(() => [endless(), []], () => [endless(), [Boolean]], () => [endless(), [2 ** 53 - 1]]);

function send({events}) {
  return events.map(row => {
    if (row.f === undefined) return {functions: found.map(([path]) => path), cases: cases.length, constructions: constructions.length};
    const [, f] = found[row.f];
    try {
      if (row.c < cases.length) {
        const [self, rest] = cases[row.c]();
        Reflect.apply(f, self, rest);
      } else {
        Reflect.construct(f, constructions[row.c - cases.length]());
      }
    } catch {}
    return {};
  });
}
