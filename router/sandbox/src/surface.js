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

  // === What is bounded ===
  //
  // A few built-ins take the process down, or hold their thread for days, when they are let loose on something huge: V8 aborts when a list
  // would have more than 2^27 entries, and these do not look at the time limit while they work. A text grows to 2^28 characters by
  // doubling it 28 times, for which no memory is needed; an array, or an object with a `length`, has any length at once. So there is a
  // limit, far above what a transform of rows may need. Real arrays of a usual length only pay for one comparison.
  const HUGE_TEXT = 1 << 24, HUGE_ARRAY = 1 << 25, HUGE_LIKE = 1 << 22, HUGE_SEARCH = 2 ** 33, HUGE_PROPERTIES = 1 << 20, LOCALES_MAX = 1000;
  const RangeErrorClass = RangeError, ProxyClass = Proxy;
  const { isArray } = Array;
  const { apply, get: reflectGet } = Reflect;
  const NumberFunction = Number;
  const { isConcatSpreadable, iterator: iteratorSymbol } = Symbol;

  // Puts a method in front of a built-in one. `around(original, self, rest)` calls it.
  function wrap(holder, name, around) {
    const descriptor = getOwnPropertyDescriptor(holder, name);
    if (descriptor === undefined || typeof descriptor.value !== 'function') return;
    const original = descriptor.value;
    const wrapped = { [name](...rest) { return around(original, this, rest); } }[name];
    replace(holder, name, original, wrapped);
  }

  function replace(holder, name, original, wrapped) {
    defineProperty(wrapped, 'length', { value: original.length });
    defineProperty(holder, name, { value: wrapped, writable: true, enumerable: false, configurable: true });
  }

  // The errors of what is bounded: a row that ends with one has exceeded its time limit, in which the call would not have ended.
  const refusals = new WeakSet();
  const has = uncurry(WeakSet.prototype.has), add = uncurry(WeakSet.prototype.add);
  const isRefusal = (error) => typeof error === 'object' && error !== null && has(refusals, error);

  function refusal(message) {
    const error = new RangeErrorClass(message);
    add(refusals, error);
    return error;
  }

  function refuse(name, max) {
    throw refusal(`${name} refuses a size beyond ${max}`);
  }

  function bound(holder, name, sizeOf, max) {
    wrap(holder, name, (original, self, rest) => {
      if (sizeOf(self, rest) > max) refuse(name, max);
      return apply(original, self, rest);
    });
  }

  // The length that a built-in would find.
  function lengthOf(value) {
    if (value === null || value === undefined) return 0;
    const { length } = value;
    if (typeof length === 'number') return length;
    return length === undefined ? 0 : NumberFunction(length);
  }

  // An array-like whose length is computed each time could show another one to the built-in than it has shown here.
  function pinned(self, length) {
    if (isArray(self) || typeof self !== 'object') return self;
    const own = getOwnPropertyDescriptor(self, 'length');
    if (own === undefined && !('length' in self)) return self;
    if (own !== undefined && 'value' in own && typeof own.value === 'number') return self;
    return new ProxyClass(self, { get: (target, key) => (key === 'length' ? length : reflectGet(target, key)) });
  }

  // The methods that work on anything with a length, and go through all of it.
  for (const name of [
    'copyWithin', 'every', 'fill', 'filter', 'find', 'findIndex', 'findLast', 'findLastIndex', 'flatMap', 'forEach', 'includes',
    'indexOf', 'join', 'lastIndexOf', 'map', 'reduce', 'reduceRight', 'reverse', 'shift', 'slice', 'some', 'sort', 'splice',
    'toLocaleString', 'toReversed', 'toSorted', 'toSpliced', 'unshift', 'with',
  ]) {
    const original = Array.prototype[name];
    if (original === undefined) continue;
    const call = uncurry(original);
    const wrapped = {
      [name](...rest) {
        // The usual case stays in the form that V8's compiler sees through.
        if (isArray(this) && this.length <= HUGE_ARRAY) return call(this, ...rest);
        const length = lengthOf(this), max = isArray(this) ? HUGE_ARRAY : HUGE_LIKE;
        if (length > max) refuse(name, max);
        return apply(original, this === null || this === undefined ? this : pinned(this, length), rest);
      },
    }[name];
    replace(Array.prototype, name, original, wrapped);
  }

  function spreads(value) {
    if (value === null || typeof value !== 'object') return false;
    const spreadable = value[isConcatSpreadable];
    return spreadable === undefined ? isArray(value) : Boolean(spreadable);
  }

  wrap(Array.prototype, 'concat', (original, self, rest) => {
    let size = spreads(self) ? lengthOf(self) : 1;
    for (let i = 0; i < rest.length; i++) size += spreads(rest[i]) ? lengthOf(rest[i]) : 1;
    if (size > HUGE_ARRAY) refuse('concat', HUGE_ARRAY);
    return apply(original, self, rest);
  });

  // Counts the places that `flat` would go through, and stops where they are too many.
  function places(array, length, depth, counted) {
    let sum = counted + length;
    if (sum > HUGE_ARRAY) refuse('flat', HUGE_ARRAY);
    if (depth < 1) return sum;
    for (let i = 0; i < length; i++) {
      const item = array[i];
      if (isArray(item)) sum = places(item, lengthOf(item), depth - 1, sum);
    }
    return sum;
  }

  wrap(Array.prototype, 'flat', (original, self, rest) => {
    if (self === null || self === undefined) return apply(original, self, rest);
    const depth = rest.length === 0 || rest[0] === undefined ? 1 : NumberFunction(rest[0]);
    const length = lengthOf(self);
    places(self, length, depth, 0);
    return apply(original, pinned(self, length), [depth]);
  });
  for (const name of ['from', 'fromAsync']) {
    bound(Array, name, (self, rest) => (rest[0]?.[iteratorSymbol] === undefined || isArray(rest[0]) ? lengthOf(rest[0]) : 0), HUGE_ARRAY);
  }

  // The texts that a method works on: itself and, where there are two, what it looks for.
  const sizeOfText = (self) => (typeof self === 'string' || self instanceof StringFunction ? self.length : lengthOf(self));
  for (const name of ['split', 'match', 'matchAll', 'replace', 'replaceAll', 'normalize', 'search', 'localeCompare']) {
    bound(String.prototype, name, sizeOfText, HUGE_TEXT);
  }
  // Looking for a long text in a long text may compare each place of one with each of the other.
  for (const name of ['includes', 'indexOf', 'lastIndexOf', 'split', 'replace', 'replaceAll']) {
    const original = String.prototype[name];
    const call = uncurry(original);
    const wrapped = {
      [name](...rest) {
        if (typeof this === 'string' && typeof rest[0] === 'string' && this.length * rest[0].length > HUGE_SEARCH) {
          throw refusal(`${name} refuses to look for a text of ${rest[0].length} characters in one of ${this.length}`);
        }
        return call(this, ...rest);
      },
    }[name];
    replace(String.prototype, name, original, wrapped);
  }
  for (const name of ['padStart', 'padEnd']) bound(String.prototype, name, (self, rest) => rest[0], HUGE_TEXT);
  bound(String.prototype, 'repeat', (self, rest) => sizeOfText(self) * rest[0], HUGE_TEXT);
  bound(String, 'raw', (self, rest) => lengthOf(rest[0]?.raw), HUGE_TEXT);
  bound(JSON, 'stringify', (self, rest) => (isArray(rest[1]) ? rest[1].length : 0), HUGE_PROPERTIES);
  bound(JSON, 'parse', (self, rest) => (typeof rest[0] === 'string' ? rest[0].length : 0), HUGE_TEXT);

  // Each character of a text is a property of it.
  const sizeOfProperties = (value) => (typeof value === 'string' || value instanceof StringFunction ? value.length : 0);
  for (const name of ['entries', 'getOwnPropertyDescriptors', 'getOwnPropertyNames', 'keys', 'values']) {
    bound(Object, name, (self, rest) => sizeOfProperties(rest[0]), HUGE_PROPERTIES);
  }
  bound(Object, 'assign', (self, rest) => {
    let size = 0;
    for (let i = 1; i < rest.length; i++) size += sizeOfProperties(rest[i]);
    return size;
  }, HUGE_PROPERTIES);
  bound(Reflect, 'ownKeys', (self, rest) => sizeOfProperties(rest[0]), HUGE_PROPERTIES);

  // Lists of languages are read to their end. One that is no array is copied: it could show another length the next time.
  function boundLocales(name, rest, place) {
    const locales = rest[place];
    if (typeof locales !== 'object' || locales === null || !('length' in locales)) return;
    const length = lengthOf(locales);
    if (length > LOCALES_MAX) refuse(name, LOCALES_MAX);
    if (isArray(locales)) return;
    const copied = [];
    for (let i = 0; i < length; i++) copied[i] = locales[i];
    rest[place] = copied;
  }

  function bindLocales(holder, name, place) {
    wrap(holder, name, (original, self, rest) => {
      boundLocales(name, rest, place);
      return apply(original, self, rest);
    });
  }

  for (const kind of [Number, BigInt, Array, Date]) bindLocales(kind.prototype, 'toLocaleString', 0);
  for (const name of ['toLocaleDateString', 'toLocaleTimeString']) bindLocales(Date.prototype, name, 0);
  for (const name of ['toLocaleLowerCase', 'toLocaleUpperCase']) bindLocales(String.prototype, name, 0);
  bindLocales(String.prototype, 'localeCompare', 1);
  bindLocales(Intl, 'getCanonicalLocales', 0);
  for (const name of ownKeys(Intl)) {
    const Original = Intl[name];
    if (typeof Original !== 'function' || Original.prototype === undefined || name === 'Locale') continue;
    bindLocales(Original, 'supportedLocalesOf', 0);
    const bounded = new ProxyClass(Original, {
      apply(target, self, rest) {
        boundLocales(name, rest, 0);
        return apply(target, self, rest);
      },
      construct(target, rest, newTarget) {
        boundLocales(name, rest, 0);
        return construct(target, rest, newTarget === bounded ? target : newTarget);
      },
    });
    defineProperty(Intl, name, { value: bounded, writable: true, enumerable: false, configurable: true });
    defineProperty(Original.prototype, 'constructor', { value: bounded, writable: true, enumerable: false, configurable: true });
  }

  // The helpers of iterators ask for the next value in a loop of their own. Where that is a built-in function as well, nothing looks at the
  // time limit; so they are given an iterator whose `next` is not.
  const steps = (self) => {
    if (self === null || (typeof self !== 'object' && typeof self !== 'function')) return self;
    return new ProxyClass(self, {
      get(target, key) {
        const value = reflectGet(target, key);
        if ((key !== 'next' && key !== 'return') || typeof value !== 'function') return value;
        return (...rest) => apply(value, target, rest);
      },
    });
  };
  for (const name of ['drop', 'every', 'filter', 'find', 'flatMap', 'forEach', 'map', 'reduce', 'some', 'take', 'toArray']) {
    wrap(Iterator.prototype, name, (original, self, rest) => apply(original, steps(self), rest));
  }

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

  return { state, shown, hidden, RealDate, isRefusal };
})
