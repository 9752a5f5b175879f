// The driver: what runs around a transform inside the transform's own context, before and after the author's code.
//
// It is compiled anew for every context, so that its functions are optimised for one transform's shapes. It lays the strict rows over
// what JSON.parse made, calls the transform, and turns the results into text: a first line of JSON that describes whatever is
// not simply one output, then one line per output.
//
// It captures the built-ins that it needs before the author's code runs, because that code may replace them.
//
// host(what, index) -> string   lends a text of the batch that is running: the event, profile or data of a row, or its schema
// emit(level, text)             keeps a line of the console
// compile(source) -> value      of a script; only for what the driver writes itself
// settings                      the limits, as an object
// surface                       the function of surface.js, which it calls once it has what it needs
(function driver(host, emit, compile, settings, surface) {
  'use strict';

  const { parse, stringify, isRawJSON } = JSON;
  const { isArray } = Array;
  const { create, defineProperty, getPrototypeOf, setPrototypeOf, hasOwn, keys } = Object;
  const { get: reflectGet } = Reflect;
  const { isFinite, isInteger } = Number;
  const ObjectPrototype = Object.prototype;
  const ErrorClass = Error, MapClass = Map, NumberClass = Number, PromiseClass = Promise, StringFunction = String;
  const StringClass = String, BooleanClass = Boolean, TypeErrorClass = TypeError;
  const uncurry = Function.prototype.bind.bind(Function.prototype.call);
  const includes = uncurry(String.prototype.includes);
  const cut = uncurry(String.prototype.slice);
  const copy = uncurry(Array.prototype.slice);
  const then = uncurry(Promise.prototype.then);
  const resolved = Promise.resolve.bind(Promise);
  const mapGet = uncurry(Map.prototype.get);
  const mapSet = uncurry(Map.prototype.set);

  const EVENT = 0, PROFILE = 1, DATA = 2, SCHEMA = 3;
  const OMIT = 0, REJECT = 1;
  const SCHEMAS_MAX = 32;

  const { state, shown, hidden, RealDate } = surface(emit, settings);
  const dateTime = uncurry(RealDate.prototype.getTime);

  // === Errors of our own ===

  // The innermost frames may be the driver's; ten of the author's are shown.
  ErrorClass.stackTraceLimit = 16;

  // A verdict of the driver, as opposed to something that the author's code threw.
  class Fault {
    constructor(kind, message) {
      this.kind = kind;
      this.message = message;
    }
  }

  class MissingColumn extends Error {
    constructor(column) {
      super(`the schema has no column '${column}'`);
      this.column = column;
    }
  }
  hidden(MissingColumn.prototype, 'name', 'MissingColumn');

  class UnsafeInteger extends Error {
    constructor(column) {
      super(`the integer in '${column}' is beyond 2^53, where JavaScript would round it; declare 'longs: string' for the column`);
      this.column = column;
    }
  }
  hidden(UnsafeInteger.prototype, 'name', 'UnsafeInteger');

  // What an error tells, whatever the author made of it.
  function describe(error) {
    let kind = 'threw', message = '', column, stack;
    try {
      if (error instanceof Fault) return { kind: error.kind, message: error.message };
      if (error instanceof MissingColumn) kind = 'missing_column';
      if (error instanceof UnsafeInteger) kind = 'unsafe_integer';
      if (kind !== 'threw') column = error.column;
      if (error instanceof ErrorClass) {
        message = kind === 'threw' ? `${error.name}: ${error.message}` : StringFunction(error.message);
        if (typeof error.stack === 'string') stack = cut(error.stack, 0, 16384);
      } else {
        message = `threw ${typeof error === 'string' ? error : shown(error)}, which is no Error`;
      }
    } catch {
      message = 'threw something that cannot be shown';
    }
    return { kind, message: cut(message, 0, 4096), column, stack };
  }

  // === Rows ===

  let rows = [];         // the rows that the transform was given, in order; the author's array is a copy
  let cursor = 0;        // where the last row was found: rows are mostly read in order
  let faults = null;     // row index -> the first strictness error that reading the row brought up, caught or not
  let events = [], profiles = [];

  // Which row of the running batch an object is, or was made from; -1 if none.
  function indexOf(object) {
    for (let each = object; each !== null && typeof each === 'object'; each = getPrototypeOf(each)) {
      if (rows[cursor] === each) return cursor;
      if (rows[cursor + 1] === each) return ++cursor;
      for (let i = 0; i < rows.length; i++) {
        if (rows[i] === each) return cursor = i;
      }
      if (each === wall) break;
    }
    return -1;
  }

  // The error is kept as well as thrown: a transform that swallows it would deliver something else than it was written for.
  function refuse(error, object) {
    if (state.quiet) return undefined;
    const index = indexOf(object);
    faults ??= create(null);
    faults[index] ??= error;
    throw error;
  }

  // Stands at the end of a strict row's prototypes: whatever arrives here is neither in the row nor in its schema.
  const wall = new Proxy(create(ObjectPrototype), {
    get(target, name, row) {
      if (typeof name === 'symbol' || name in ObjectPrototype) return reflectGet(ObjectPrototype, name, row);
      // Asked by JSON.stringify and by await of anything, not by the author.
      if (name === 'toJSON' || name === 'then') return undefined;
      return refuse(new MissingColumn(name), row);
    },
    has(target, name) {
      return name in ObjectPrototype;
    },
  });

  function place(object, name, value) {
    defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
  }

  // Puts a getter that throws over the integer at a path.
  function guard(root, path, row) {
    let holder = root;
    for (let i = 0; i < path.length - 1; i++) holder = holder?.[path[i]];
    if (holder === null || typeof holder !== 'object') return;
    const last = path[path.length - 1];
    defineProperty(holder, last, {
      get: () => refuse(new UnsafeInteger(path.join('.')), row),
      set(value) { place(this, last, value); },
      enumerable: true,
      configurable: true,
    });
  }

  function inside(root, path, value) {
    let holder = root;
    for (let i = 0; i < path.length - 1; i++) {
      let next = hasOwn(holder, path[i]) ? holder[path[i]] : null;
      if (next === null || typeof next !== 'object') {
        if (value === null) return;
        next = {};
        place(holder, path[i], next);
      }
      holder = next;
    }
    place(holder, path[path.length - 1], value);
  }

  // A text that is read only when somebody asks, with the unsafe integers in it guarded.
  function lend(what, index, row) {
    const [value, unsafe] = parse(host(what, index));
    for (const path of unsafe) guard(value, path, row);
    return value;
  }

  function current(row) {
    const index = indexOf(row);
    if (index < 0) throw new ErrorClass('row._event and row._profile can be read only while the row\'s own batch runs');
    return index;
  }

  const reserved = {
    _event: {
      get() {
        const index = current(this);
        if (events[index] !== undefined) return events[index];
        const row = rows[index], { laws, longs } = running;
        const event = lend(EVENT, index, row) ?? {};
        // The row's own values, before the profile's identifiers were laid over them.
        defineProperty(event, 'data', {
          get() {
            if (rows[index] !== row) current(row);
            const data = lend(DATA, index, row);
            setPrototypeOf(data, laws);
            if (longs !== null) spell(data, longs);
            place(event, 'data', data);
            return data;
          },
          enumerable: true,
          configurable: true,
        });
        return events[index] = event;
      },
      enumerable: false,
      configurable: true,
    },
    _profile: {
      get() {
        const index = current(this);
        return profiles[index] ??= lend(PROFILE, index, rows[index]) ?? {};
      },
      enumerable: false,
      configurable: true,
    },
  };

  function lawsOf(spec) {
    const strict = spec !== null && spec.strict;
    const known = create(null);
    const laws = create(strict ? wall : ObjectPrototype);
    if (spec !== null) {
      if (strict) {
        for (const column of spec.columns) {
          known[column] = true;
          hidden(laws, column, null);
        }
      }
      for (const group of spec.aliases) {
        if (strict && !group.some((name) => known[name])) continue;
        for (const name of group) {
          known[name] = true;
          defineProperty(laws, name, {
            get() {
              for (const other of group) {
                if (hasOwn(this, other)) return this[other];
              }
              return strict ? null : undefined;
            },
            set(value) { place(this, name, value); },
            enumerable: false,
            configurable: true,
          });
        }
      }
    }
    defineProperty(laws, '_event', reserved._event);
    defineProperty(laws, '_profile', reserved._profile);
    hidden(laws, 'optional', function optional(column) {
      if (hasOwn(this, column)) return this[column];
      return known[column] ? reflectGet(laws, column, this) : undefined;
    });
    return { laws, longs: spec !== null && spec.longs.length > 0 ? spec.longs : null, shapes: [], strange: 0 };
  }

  // The integers of a `longs: string` column are strings, small ones too, so that a value's type does not depend on its size.
  // (Those beyond 2^53 are strings already in the text.)
  function spelled(value) {
    if (typeof value === 'number' && isInteger(value)) return StringFunction(value);
    if (typeof value === 'object' && value !== null) {
      for (const name of keys(value)) {
        const old = value[name], spelt = spelled(old);
        if (spelt !== old) value[name] = spelt;
      }
    }
    return value;
  }

  function spell(row, longs) {
    for (const name of longs) {
      if (hasOwn(row, name)) row[name] = spelled(row[name]);
    }
  }

  const loose = lawsOf(null);
  let schemas = new MapClass();
  let running = loose;   // the laws of the batch that runs, or ran last

  function lawsFor(schema) {
    if (schema === 0) return loose;
    let found = mapGet(schemas, schema);
    if (found === undefined) {
      if (schemas.size >= SCHEMAS_MAX) schemas = new MapClass();
      found = lawsOf(parse(host(SCHEMA, 0)));
      mapSet(schemas, schema, found);
    }
    return found;
  }

  // === Shapes ===
  //
  // Nearly all rows of a source have the same columns in the same order. For each such shape a class is written whose objects have the laws
  // from their birth, and the row's values are taken over together with what is laid over them: giving an object another prototype afterwards
  // takes a tenth of the time that a row takes, and changing its columns before that another tenth. A row of any other shape is dressed
  // the long way.

  const SHAPES_MAX = 16, SHAPE_COLUMNS_MAX = 128;
  // Batches of unknown shape after which one of the kept shapes makes room.
  const STRANGE_MAX = 64;
  const NOTHING = 0;     // in an overlaid column: this row is not overlaid

  function shapeOf(laws, first, columns) {
    const names = keys(first);
    const { shapes } = laws;
    for (let i = 0; i < shapes.length; i++) {
      if (isShape(shapes[i], names, columns)) return shapes[i];
    }
    if (names.length > SHAPE_COLUMNS_MAX || (shapes.length >= SHAPES_MAX && ++laws.strange < STRANGE_MAX)) return null;
    laws.strange = 0;
    const covered = [];
    for (let c = 0; c < columns.length; c++) covered[c] = columns[c][0];
    const shape = { names, covered, make: makerOf(laws.laws, names, covered) };
    shapes[shapes.length < SHAPES_MAX ? shapes.length : 0] = shape;
    return shape;
  }

  function isShape(shape, names, columns) {
    if (shape.names.length !== names.length || shape.covered.length !== columns.length) return false;
    for (let i = 0; i < names.length; i++) {
      if (shape.names[i] !== names[i]) return false;
    }
    for (let c = 0; c < columns.length; c++) {
      if (shape.covered[c] !== columns[c][0]) return false;
    }
    return true;
  }

  // Writes the code for a shape; null where a name would mean something else in it. Fields define their properties, whatever the laws say.
  function makerOf(laws, names, covered) {
    let fields = '', whole = '', open = '';
    for (let i = 0; i < names.length; i++) {
      const name = stringify(names[i]);
      if (!isPlainName(names[i])) return null;
      let value = `from[${name}]`;
      for (let c = 0; c < covered.length; c++) {
        if (covered[c] === names[i]) value = `c${c}[at] === ${NOTHING} ? ${value} : c${c}[at]`;
      }
      fields += `${name} = ${value};\n`;
    }
    for (let c = 0; c < covered.length; c++) {
      open += `c${c} = columns[${c}][1];\n`;
      let own = false;
      for (let i = 0; i < names.length; i++) own ||= covered[c] === names[i];
      if (own) continue;
      if (!isPlainName(covered[c])) return null;
      // A column that the row itself does not have: the shape is one of rows that are overlaid with it.
      fields += `${stringify(covered[c])} = c${c}[at];\n`;
      whole += ` && c${c}[at] !== ${NOTHING}`;
    }
    let variables = 'from = null, at = 0';
    for (let c = 0; c < covered.length; c++) variables += `, c${c} = null`;
    const source = `(function (laws, names, setPrototypeOf) {
      'use strict';
      let ${variables};
      class Row {
        ${fields}
      }
      delete Row.prototype.constructor;
      setPrototypeOf(Row.prototype, laws);
      return (parsed, columns) => {
        const rows = [];
        ${open}
        for (at = 0; at < parsed.length; at++) {
          from = parsed[at];
          let count = 0;
          for (const name in from) {
            if (name !== names[count]) {
              count = -1;
              break;
            }
            count++;
          }
          rows[at] = count === ${names.length}${whole} ? new Row() : undefined;
        }
        from = null;
        return rows;
      };
    })`;
    return compile(source)(laws, names, setPrototypeOf);
  }

  // Not a number, which would come before all others, and not a word of the language's own.
  function isPlainName(name) {
    return name !== 'constructor' && name !== '__proto__' && !(name[0] >= '0' && name[0] <= '9');
  }

  // The rows for the transform: what was parsed, with the laws, and with the overlaid columns.
  function dress(parsed, laws, columns) {
    const count = parsed.length;
    // Where nothing is laid over the rows there is nothing to take over: then the long way is the shorter one.
    const shape = count === 0 || columns.length === 0 ? null : shapeOf(laws, parsed[0], columns);
    const dressed = shape === null || shape.make === null ? [] : shape.make(parsed, columns);
    for (let i = 0; i < count; i++) {
      if (dressed[i] !== undefined) continue;
      const row = parsed[i];
      setPrototypeOf(row, laws.laws);
      for (let c = 0; c < columns.length; c++) {
        const value = columns[c][1][i];
        if (value !== NOTHING) place(row, columns[c][0], value);
      }
      dressed[i] = row;
    }
    return dressed;
  }

  // === Outputs ===

  function kindOf(value) {
    if (value === null) return 'null';
    if (isArray(value)) return 'an array';
    if (value instanceof PromiseClass) return 'a promise (await it: `await Promise.all(...)`)';
    const kind = typeof value;
    return kind === 'undefined' ? 'undefined' : kind === 'object' ? 'an object' : `a ${kind}`;
  }

  // Whether JSON would turn a number (or a date) in here into null.
  function tainted(value) {
    if (typeof value === 'number') return !isFinite(value);
    if (typeof value !== 'object' || value === null || isRawJSON(value)) return false;
    if (value instanceof RealDate) return !isFinite(dateTime(value));
    if (typeof value.toJSON === 'function') return tainted(value.toJSON(''));
    if (value instanceof NumberClass) return !isFinite(+value);
    for (const name of keys(value)) {
      if (tainted(value[name])) return true;
    }
    return false;
  }

  const GONE = {};

  // A copy without the numbers that are not finite; `lost` takes the paths of the properties that were left out or cleared.
  function cleaned(value, path, mode, lost) {
    if (typeof value === 'object' && value !== null && !isRawJSON(value)) {
      if (value instanceof RealDate) {
        if (isFinite(dateTime(value))) return value;
        value = NaN;
      } else if (typeof value.toJSON === 'function') {
        return cleaned(value.toJSON(''), path, mode, lost);
      } else if (value instanceof NumberClass) {
        value = +value;
      } else if (value instanceof StringClass || value instanceof BooleanClass) {
        return value;
      } else if (isArray(value)) {
        const result = [];
        for (let i = 0; i < value.length; i++) {
          const item = cleaned(value[i], `${path}[${i}]`, mode, lost);
          // A list with a hole in it is another list: the property that holds it goes.
          if (item === GONE) return GONE;
          result[i] = item;
        }
        return result;
      } else {
        const result = create(null);
        for (const name of keys(value)) {
          const under = path === '' ? name : `${path}.${name}`;
          const item = cleaned(value[name], under, mode, lost);
          if (item === GONE) lost[lost.length] = under;
          else result[name] = item;
        }
        return result;
      }
    }
    if (typeof value !== 'number' || isFinite(value)) return value;
    if (mode === OMIT) return GONE;
    lost[lost.length] = path;
    return null;
  }

  function keyText(key) {
    const text = typeof key === 'number' && isFinite(key) ? StringFunction(key) : key;
    if (typeof text !== 'string' || text === '' || text.length > settings.keyMax) {
      throw new Fault('shape', `_key must be a number or a string of 1 to ${settings.keyMax} characters, and is ${kindOf(key)}`);
    }
    return text;
  }

  function textOf(value) {
    try {
      return stringify(value);
    } catch (error) {
      if (error instanceof TypeErrorClass) {
        const message = StringFunction(error.message);
        if (includes(message, 'BigInt')) {
          throw new Fault('shape', 'the output holds a BigInt, for which JSON has no notation; use String(value)');
        }
        if (includes(message, 'circular')) throw new Fault('shape', 'the output refers to itself, which JSON cannot express');
      }
      throw error;
    }
  }

  let extra = null;      // what goes with the output that was encoded last: its key, its lost paths

  function encode(output, mode) {
    extra = null;
    if (output === null || typeof output !== 'object' || isArray(output)) {
      throw new Fault('shape', `an output is ${kindOf(output)}; expected an object`);
    }
    let value = output;
    if (hasOwn(output, '_key')) {
      const { _key, ...rest } = output;
      value = rest;
      if (_key !== null && _key !== undefined) extra = { k: keyText(_key) };
    }
    let text = textOf(value);
    if (text === undefined || text[0] !== '{') throw new Fault('shape', `an output becomes ${text ?? 'nothing'} in JSON; expected an object`);
    if (text === '{}' && value === output) {
      const kind = getPrototypeOf(output);
      if (kind !== null && kind !== ObjectPrototype && indexOf(output) < 0) {
        throw new Fault('shape', `an output is ${output instanceof PromiseClass ? kindOf(output) : 'an object that JSON shows as empty, such as a Map'}; expected a plain object`);
      }
    }
    if (includes(text, 'null') && tainted(value)) {
      const lost = [];
      const copied = cleaned(value, '', mode, lost);
      if (mode === REJECT) throw new Fault('non_finite', `the number at '${lost[0]}' is not finite`);
      text = stringify(copied);
      extra ??= {};
      extra.n = lost;
    }
    return text;
  }

  function tooLarge(size) {
    return new Fault('too_large', `the outputs have more than ${size} characters; at most ${settings.outputBytesMax} bytes are allowed for one row`);
  }

  function collect(results, mode) {
    const count = rows.length;
    if (!isArray(results)) {
      throw new Fault('shape', `the transform returned ${kindOf(results)}; expected an array with one entry for each of the ${count} events`);
    }
    if (results.length !== count) {
      throw new Fault('shape', `the transform returned ${results.length} entries for ${count} events; expected one for each, and null to skip one`);
    }
    const special = [];
    let lines = '';
    for (let i = 0; i < count; i++) {
      if (faults !== null && faults[i] !== undefined) {
        special[special.length] = { i, f: describe(faults[i]) };
        continue;
      }
      const result = results[i];
      if (result === null) {
        special[special.length] = { i, o: [] };
        continue;
      }
      try {
        if (isArray(result)) {
          if (result.length > settings.outputsMax) {
            throw new Fault('too_large', `one row made ${result.length} outputs; at most ${settings.outputsMax} are allowed`);
          }
          let own = '';
          const extras = [];
          for (let j = 0; j < result.length; j++) {
            own += '\n' + encode(result[j], mode);
            extras[j] = extra ?? {};
            if (own.length > settings.outputBytesMax + j) throw tooLarge(settings.outputBytesMax);
          }
          lines += own;
          special[special.length] = { i, o: extras };
        } else if (typeof result === 'object') {
          const text = encode(result, mode);
          if (text.length > settings.outputBytesMax) throw tooLarge(settings.outputBytesMax);
          lines += '\n' + text;
          if (extra !== null) special[special.length] = { i, o: [extra] };
        } else {
          throw new Fault('shape', `the result for the event is ${kindOf(result)}; expected an object, an array of objects, or null to skip it`);
        }
      } catch (error) {
        // Reading a row's column while it is turned into text may bring up a strictness error as well.
        special[special.length] = { i, f: describe(faults?.[i] ?? error) };
      }
    }
    return (special.length === 0 ? '' : stringify(special)) + lines;
  }

  // === What the sandbox calls ===

  const NO_NOTES = { u: [], o: [], c: [] };
  let entry = null;
  let settled = false, rejected = false, value;

  return {
    install(transform) {
      entry = transform;
    },

    start(text, count, schema, notes, headers, now, seed) {
      state.clock = now;
      state.chance = seed | 0;
      settled = rejected = false;
      value = faults = null;
      cursor = 0;
      events = [];
      profiles = [];
      running = lawsFor(schema);
      let parsed;
      try {
        parsed = parse(text);
      } catch (error) {
        throw new Fault('input', `the row's data is not valid JSON: ${error.message}`);
      }
      if (parsed.length !== count) throw new Fault('input', 'the row\'s data is not one JSON object');
      const { u: unsafe, o: overlays, c: columns } = notes === undefined ? NO_NOTES : parse(notes);
      rows = dress(parsed, running, columns);
      for (const [index, path] of unsafe) guard(rows[index], path, rows[index]);
      for (const [index, path, over] of overlays) inside(rows[index], path, over);
      const { longs } = running;
      if (longs !== null) {
        for (let i = 0; i < count; i++) spell(rows[i], longs);
      }
      const result = entry({ events: copy(rows) }, parse(headers));
      if (result !== null && typeof result === 'object' && typeof result.then === 'function') {
        then(resolved(result), (done) => {
          settled = true;
          value = done;
        }, (error) => {
          settled = rejected = true;
          value = error;
        });
      } else {
        settled = true;
        value = result;
      }
    },

    // After the microtasks have run: the results as text.
    finish(mode) {
      try {
        if (faults !== null && faults[-1] !== undefined) throw faults[-1];
        if (rejected) throw value;
        if (!settled) {
          throw new Fault('pending', 'the promise of the transform never settles: nothing is left to run, and a transform has no timers or I/O');
        }
        return collect(value, mode);
      } finally {
        value = null;
      }
    },

    // What went wrong, as JSON. A strictness error has precedence over what the author's code made of it.
    describe(error) {
      let worst = error;
      if (faults !== null) {
        for (const index of keys(faults)) {
          worst = faults[index];
          break;
        }
      }
      return stringify(describe(worst));
    },

    // Lets go of the batch, so that it can be collected.
    forget() {
      rows = [];
      faults = null;
      events = [];
      profiles = [];
      value = null;
    },
  };
})
