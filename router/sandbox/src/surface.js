// The surface: what a transform may see of the language, and what the driver keeps of it for itself.
//
// It is run by the driver in a new context, before the author's code. It takes away what a transform must not have, bounds what could take the
// process down, and makes time and chance repeatable. The state that it returns is the driver's to set:
//
// clock    what the time is, in milliseconds
// chance   the state of Math.random
// quiet    whether values are only being shown on the console: reading a row must have no consequences then
(function surface(emit, settings) {
  'use strict';

  const { stringify } = JSON;
  const { defineProperty } = Object;
  const { construct, deleteProperty, getOwnPropertyDescriptor, ownKeys } = Reflect;
  const { imul } = Math;
  const ErrorClass = Error, StringFunction = String;
  const uncurry = Function.prototype.bind.bind(Function.prototype.call);
  const cut = uncurry(String.prototype.slice);

  const state = { clock: 0, chance: 0, quiet: false };

  // === What stays ===

  const allowed = [
    'AggregateError', 'Array', 'AsyncDisposableStack', 'BigInt', 'Boolean', 'Date', 'DisposableStack', 'Error', 'EvalError',
    'Function', 'Infinity', 'Intl', 'Iterator', 'JSON', 'Map', 'Math', 'NaN', 'Number', 'Object', 'Promise', 'Proxy',
    'RangeError', 'ReferenceError', 'Reflect', 'RegExp', 'Set', 'String', 'SuppressedError', 'Symbol', 'SyntaxError',
    'TypeError', 'URIError', 'WeakMap', 'WeakSet', 'console', 'decodeURI', 'decodeURIComponent', 'encodeURI',
    'encodeURIComponent', 'escape', 'eval', 'globalThis', 'isFinite', 'isNaN', 'parseFloat', 'parseInt', 'undefined',
    'unescape',
  ];
  // A list of what stays, not of what goes: a new version of the engine must not bring a new way out. Buffers go because
  // their memory does not count towards the heap limit; weak references because they make garbage collection visible.
  for (const name of ownKeys(globalThis)) {
    if (typeof name === 'string' && !allowed.includes(name)) deleteProperty(globalThis, name);
  }

  // A few built-ins take the process down, or hold it for long, when they are let loose on something huge: V8 aborts when a list
  // would have more than 2^27 entries, and these do not look at the time limit while they work. A text grows to 2^28 characters by
  // doubling it 28 times, for which no memory is needed; an array has any length at once. So there is a limit, far above what
  // a transform of rows may need.
  const HUGE_TEXT = 1 << 24, HUGE_ARRAY = 1 << 25;
  const RangeErrorClass = RangeError;

  function bound(holder, name, sizeOf, max) {
    const original = uncurry(holder[name]);
    const bounded = {
      [name](...rest) {
        if (sizeOf(this, rest[0]) > max) throw new RangeErrorClass(`${name} refuses a size beyond ${max}`);
        return original(this, ...rest);
      },
    }[name];
    defineProperty(bounded, 'length', { value: holder[name].length });
    defineProperty(holder, name, { value: bounded, writable: true, enumerable: false, configurable: true });
  }

  const lengthOf = (value) => (value === null || value === undefined ? 0 : value.length);
  for (const name of ['split', 'match', 'matchAll', 'replace', 'replaceAll', 'normalize']) {
    bound(String.prototype, name, lengthOf, HUGE_TEXT);
  }
  for (const name of ['padStart', 'padEnd']) bound(String.prototype, name, (text, size) => size, HUGE_TEXT);
  bound(String.prototype, 'repeat', (text, times) => (typeof text === 'string' ? text.length * times : 0), HUGE_TEXT);
  bound(JSON, 'parse', (json, text) => (typeof text === 'string' ? text.length : 0), HUGE_TEXT);
  for (const name of ['fill', 'toReversed', 'toSorted', 'unshift']) bound(Array.prototype, name, lengthOf, HUGE_ARRAY);

  // === Time and chance: the same batch has the same result, whenever it is run ===

  const RealDate = Date;
  const dateTime = uncurry(RealDate.prototype.getTime);
  const FixedDate = function Date(...parts) {
    if (new.target === undefined) return new RealDate(state.clock).toString();
    if (new.target === FixedDate && parts.length === 1) return new RealDate(parts[0]);
    return construct(RealDate, parts.length === 0 ? [state.clock] : parts, new.target);
  };
  defineProperty(FixedDate, 'length', { value: 7 });
  defineProperty(FixedDate, 'prototype', { value: RealDate.prototype, writable: false });
  const hidden = (object, name, value) => defineProperty(object, name, { value, writable: true, enumerable: false, configurable: true });
  hidden(RealDate.prototype, 'constructor', FixedDate);
  hidden(FixedDate, 'now', () => state.clock);
  hidden(FixedDate, 'parse', RealDate.parse);
  hidden(FixedDate, 'UTC', RealDate.UTC);
  hidden(globalThis, 'Date', FixedDate);

  const DateFormat = Intl.DateTimeFormat.prototype;
  const formatGetter = uncurry(getOwnPropertyDescriptor(DateFormat, 'format').get);
  const formatToParts = uncurry(DateFormat.formatToParts);
  defineProperty(DateFormat, 'format', {
    get() {
      const format = formatGetter(this);
      return (date) => format(date === undefined ? state.clock : date);
    },
    configurable: true,
  });
  hidden(DateFormat, 'formatToParts', function (date) {
    return formatToParts(this, date === undefined ? state.clock : date);
  });

  // mulberry32: 32 good bits are enough for sampling, and its state is one number.
  const draw = () => {
    state.chance = (state.chance + 0x6d2b79f5) | 0;
    let t = imul(state.chance ^ (state.chance >>> 15), 1 | state.chance);
    t = (t + imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
  hidden(Math, 'random', () => draw() / 4294967296);

  // === Console ===

  function shown(value) {
    if (typeof value === 'string') return value;
    if (value instanceof ErrorClass) return StringFunction(value.stack ?? value);
    if (typeof value === 'object' && value !== null) return stringify(value) ?? StringFunction(value);
    if (typeof value === 'bigint') return `${value}n`;
    return StringFunction(value);
  }

  function write(level, parts) {
    state.quiet = true;
    let text = '';
    try {
      for (let i = 0; i < parts.length && text.length <= settings.consoleBytesMax; i++) {
        let part;
        try {
          part = shown(parts[i]);
        } catch {
          part = '[a value that cannot be shown]';
        }
        text += i === 0 ? part : ` ${part}`;
      }
    } finally {
      state.quiet = false;
    }
    emit(level, cut(text, 0, settings.consoleBytesMax));
  }

  const silent = () => undefined;
  hidden(globalThis, 'console', {
    error: (...parts) => write('error', parts),
    warn: (...parts) => write('warn', parts),
    log: (...parts) => write('info', parts),
    info: (...parts) => write('info', parts),
    dir: (value) => write('info', [value]),
    table: (value) => write('info', [value]),
    debug: (...parts) => write('debug', parts),
    trace: (...parts) => write('debug', parts),
    assert: (condition, ...parts) => condition ? undefined : write('error', ['assertion failed', ...parts]),
    group: silent, groupCollapsed: silent, groupEnd: silent, time: silent, timeEnd: silent, timeLog: silent,
    count: silent, countReset: silent, clear: silent,
  });

  return { state, shown, hidden, RealDate };
})
