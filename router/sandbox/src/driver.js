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
  const ErrorClass = Error, MapClass = Map, NumberClass = Number, PromiseClass = Promise, ProxyClass = Proxy, StringFunction = String;
  const WeakSetClass = WeakSet;
  const StringClass = String, BooleanClass = Boolean, TypeErrorClass = TypeError;
  const uncurry = Function.prototype.bind.bind(Function.prototype.call);
  const includes = uncurry(String.prototype.includes);
  const cut = uncurry(String.prototype.slice);
  const indexOfText = uncurry(String.prototype.indexOf);
  const join = uncurry(Array.prototype.join);
  const copy = uncurry(Array.prototype.slice);
  const then = uncurry(Promise.prototype.then);
  const resolved = Promise.resolve.bind(Promise);
  const mapGet = uncurry(Map.prototype.get);
  const mapSet = uncurry(Map.prototype.set);

  const EVENT = 0, PROFILE = 1, DATA = 2, SCHEMA = 3;
  const OMIT = 0, REJECT = 1;
  const SCHEMAS_MAX = 32;

  const { state, shown, hidden, RealDate, isRefusal } = surface(emit, settings);
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

  class UnsafeDecimal extends Error {
    constructor(column, isTyped) {
      const cure = isTyped ? "declare 'decimals: string' for the column" : 'declare the type of the column: double rounds it, decimal keeps its digits';
      super(`the number in '${column}' has more digits than JavaScript can hold, so it would be rounded; ${cure}`);
      this.column = column;
    }
  }
  hidden(UnsafeDecimal.prototype, 'name', 'UnsafeDecimal');

  // What a value holds; from STRUCT on, other values.
  const LONG = 1, FLOAT = 2, ANY = 3, STRUCT = 4, ARRAY = 5, MAP = 6;
  const INTEGER = 0, DECIMAL = 2;   // what a number is that would be rounded; between them, one of a column without a type

  // What an error tells, whatever the author made of it.
  function describe(error) {
    let kind = 'threw', message = '', column, stack;
    try {
      if (error instanceof Fault) return { kind: error.kind, message: error.message };
      if (error instanceof MissingColumn) kind = 'missing_column';
      if (error instanceof UnsafeInteger) kind = 'unsafe_integer';
      if (error instanceof UnsafeDecimal) kind = 'unsafe_decimal';
      if (kind !== 'threw') column = error.column;
      if (isRefusal(error)) kind = 'timeout';
      if (error instanceof ErrorClass) {
        message = kind === 'threw' || kind === 'timeout' ? `${error.name}: ${error.message}` : StringFunction(error.message);
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
  let lenient = false;   // whether a name may be read that belongs to another column than before

  // Which row of the running batch an object is, or was made from; -1 if none.
  function indexOf(object) {
    for (let each = object; each !== null && typeof each === 'object'; each = getPrototypeOf(each)) {
      if (rows[cursor] === each) return cursor;
      if (rows[cursor + 1] === each) return ++cursor;
      for (let i = 0; i < rows.length; i++) {
        if (rows[i] === each) return cursor = i;
      }
      if (isStrictProto(each)) break;
    }
    return -1;
  }

  // Which row a struct is part of; -1 if none is found. Only asked when a row fails.
  function rowOf(object) {
    const index = indexOf(object);
    if (index >= 0) return index;
    const { plans } = running, wasLenient = lenient;
    lenient = true;
    try {
      for (let i = 0; i < rows.length; i++) {
        for (let p = 0; p < plans.length; p++) {
          const { name, kind } = plans[p];
          if (kind.form >= STRUCT && hasOwn(rows[i], name) && contains(rows[i][name], kind, object)) return i;
        }
      }
    } finally {
      lenient = wasLenient;
    }
    return -1;
  }

  function contains(value, kind, object) {
    if (value === null || typeof value !== 'object') return false;
    for (let each = object; each !== null && typeof each === 'object'; each = getPrototypeOf(each)) {
      if (each === value) return true;
      if (isStrictProto(each)) break;
    }
    switch (kind.form) {
      case STRUCT:
        for (let i = 0; i < kind.fields.length; i++) {
          const [name, inner] = kind.fields[i];
          if (inner.form >= STRUCT && hasOwn(value, name) && contains(value[name], inner, object)) return true;
        }
        return false;
      case ARRAY:
      case MAP:
        if (kind.inner.form < STRUCT) return false;
        for (const name of keys(value)) {
          if (contains(value[name], kind.inner, object)) return true;
        }
        return false;
      default:
        return false;
    }
  }

  // The error is kept as well as thrown: a transform that swallows it would deliver something else than it was written for.
  function refuse(error, object) {
    if (state.quiet) return undefined;
    const index = rowOf(object);
    faults ??= create(null);
    faults[index] ??= error;
    throw error;
  }

  // The prototypes of strict structs, to tell them from objects of the author's.
  const strictProtos = new WeakSetClass();
  const isStrictProto = uncurry(WeakSetClass.prototype.has).bind(undefined, strictProtos);
  const addStrictProto = uncurry(WeakSetClass.prototype.add).bind(undefined, strictProtos);

  // Stands at the end of the prototypes of a strict row or struct: whatever arrives here is neither in it nor in its schema. `path` is
  // the struct's, with a dot behind it.
  function wallOf(path) {
    const wall = new ProxyClass(create(ObjectPrototype), {
      get(target, name, object) {
        if (typeof name === 'symbol' || name in ObjectPrototype) return reflectGet(ObjectPrototype, name, object);
        // Asked by JSON.stringify and by await of anything, not by the author.
        if (name === 'toJSON' || name === 'then') return undefined;
        return refuse(new MissingColumn(path + name), object);
      },
      has(target, name) {
        return name in ObjectPrototype;
      },
    });
    addStrictProto(wall);
    return wall;
  }

  const wall = wallOf('');

  function place(object, name, value) {
    defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
  }

  // Puts a getter that throws over a name that belongs to another column than before.
  function guardName(object, name, path) {
    if (!hasOwn(object, name)) return;
    const value = object[name];
    defineProperty(object, name, {
      get() { return lenient ? value : refuse(new MissingColumn(path), this); },
      set(other) { place(this, name, other); },
      enumerable: true,
      configurable: true,
    });
  }

  // Puts a getter that throws over the number at a path.
  function guard(root, path, row, rounded) {
    let holder = root;
    for (let i = 0; i < path.length - 1; i++) holder = holder?.[path[i]];
    if (holder === null || typeof holder !== 'object') return;
    const last = path[path.length - 1];
    defineProperty(holder, last, {
      get: () => refuse(rounded === INTEGER ? new UnsafeInteger(join(path, '.')) : new UnsafeDecimal(join(path, '.'), rounded === DECIMAL), row),
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

  // A text that is read only when somebody asks, with the numbers in it guarded that would be rounded.
  function lend(what, index, row, shape) {
    const [value, unsafe] = parse(host(what, index));
    if (shape !== null) fit(value, shape, true);
    for (let i = 0; i < unsafe.length; i++) guard(value, unsafe[i][0], row, unsafe[i][1]);
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
        const row = rows[index], shape = running;
        const event = lend(EVENT, index, row, null) ?? {};
        // The row's own values, before the profile's identifiers were laid over them.
        defineProperty(event, 'data', {
          get() {
            if (rows[index] !== row) current(row);
            const data = lend(DATA, index, row, shape);
            setPrototypeOf(data, shape.laws);
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
        return profiles[index] ??= lend(PROFILE, index, rows[index], null) ?? {};
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
      lenient = true;
      try {
        if (hasOwn(this, column)) return this[column];
        if (known[column]) return reflectGet(laws, column, this);
        return typeof column === 'string' && includes(column, '.') ? optionalAt(this, column) : undefined;
      } finally {
        lenient = false;
      }
    });
    const plans = [], moved = [];
    if (spec !== null) {
      for (const { name, kind, longs } of spec.kinds) {
        const plan = kindOfSpec(kind, { strict, longs, reassigned: spec.reassigned }, [name]);
        if (plan !== null) plans[plans.length] = { name, kind: plan, always: plan.always };
      }
      for (const path of spec.reassigned) {
        if (path.length === 1) moved[moved.length] = path[0];
      }
    }
    return { laws, plans, moved, shapes: [], strange: 0, always: moved.length > 0 || plans.some((plan) => plan.always) };
  }

  // `row.optional('profile.score')`: through structs, whose names may have dots in them.
  function optionalAt(object, path) {
    for (let dot = indexOfText(path, '.'); dot >= 0; dot = indexOfText(path, '.', dot + 1)) {
      const name = cut(path, 0, dot);
      if (!hasOwn(object, name)) continue;
      const inner = object[name];
      const rest = cut(path, dot + 1);
      if (inner === null || typeof inner !== 'object') return undefined;
      return hasOwn(inner, rest) || strictFieldOf(inner, rest) ? inner[rest] : optionalAt(inner, rest);
    }
    return undefined;
  }

  // Whether a struct's schema has a field that the struct itself does not.
  function strictFieldOf(object, name) {
    const laws = getPrototypeOf(object);
    return laws !== null && isStrictProto(laws) && hasOwn(laws, name);
  }

  // === What the values of a column hold ===

  // What has to be done to a value of a type; null where nothing has to. `always` is false where it is only done to rows in which a text
  // may stand for a number.
  function kindOfSpec(spec, options, path) {
    const { strict, longs, reassigned } = options;
    if (spec === null) return null;
    if (spec === 'long') return longs ? { form: LONG, always: true } : null;
    if (spec === 'any') return longs ? { form: ANY, always: true } : null;
    if (spec === 'float') return { form: FLOAT, always: false };
    if (spec.array !== undefined || spec.map !== undefined) {
      const inner = kindOfSpec(spec.array !== undefined ? spec.array : spec.map, options, path);
      return inner === null ? null : { form: spec.array !== undefined ? ARRAY : MAP, inner, always: inner.always };
    }
    const fields = [];
    let always = strict;
    const shownPath = join(path, '.');
    const laws = strict ? create(wallOf(`${shownPath}.`)) : null;
    if (strict) addStrictProto(laws);
    const moved = [];
    for (const other of reassigned) {
      if (other.length === path.length + 1 && path.every((step, i) => step === other[i])) moved[moved.length] = other[path.length];
    }
    for (const [name, inner] of spec.struct) {
      const kind = kindOfSpec(inner, options, [...path, name]);
      if (strict) hidden(laws, name, null);
      if (kind !== null) {
        always ||= kind.always;
        fields[fields.length] = [name, kind];
      }
    }
    return strict || fields.length > 0 ? { form: STRUCT, fields, laws, moved, path: shownPath, always } : null;
  }

  // Brings the columns of a row into the form that their types ask for.
  function fit(row, { plans, moved }, floats) {
    for (let i = 0; i < plans.length; i++) {
      const { name, kind, always } = plans[i];
      if ((always || floats) && hasOwn(row, name)) {
        const old = row[name];
        const value = fitted(old, kind, floats);
        if (value !== old) row[name] = value;
      }
    }
    for (let i = 0; i < moved.length; i++) guardName(row, moved[i], moved[i]);
  }

  function fitted(value, kind, floats) {
    if (value === null) return null;
    switch (kind.form) {
      // The integers of a `longs: string` column are strings, small ones too, so that a value's type does not depend on its size.
      // (Those beyond 2^53 are strings already in the text.)
      case LONG:
        return typeof value === 'number' && isInteger(value) ? StringFunction(value) : value;
      case ANY:
        return spelled(value);
      case FLOAT:
        return typeof value === 'string' ? numberOf(value) : value;
      case STRUCT: {
        if (typeof value !== 'object' || isArray(value)) return value;
        const { fields, laws, moved } = kind;
        for (let i = 0; i < fields.length; i++) {
          const [name, inner] = fields[i];
          if (!(inner.always || floats) || !hasOwn(value, name)) continue;
          const old = value[name], now = fitted(old, inner, floats);
          if (now !== old) place(value, name, now);
        }
        if (laws !== null) setPrototypeOf(value, laws);
        for (let i = 0; i < moved.length; i++) guardName(value, moved[i], `${kind.path}.${moved[i]}`);
        return value;
      }
      default: {
        if (typeof value !== 'object' || isArray(value) !== (kind.form === ARRAY)) return value;
        const { inner } = kind;
        if (!(inner.always || floats)) return value;
        for (const name of keys(value)) {
          const old = value[name], now = fitted(old, inner, floats);
          if (now !== old) place(value, name, now);
        }
        return value;
      }
    }
  }

  // How a table's reader spells the numbers for which JSON has no notation.
  function numberOf(text) {
    return text === 'NaN' ? NaN : text === 'Infinity' ? Infinity : text === '-Infinity' ? -Infinity : text;
  }

  function spelled(value) {
    if (typeof value === 'number' && isInteger(value)) return StringFunction(value);
    if (typeof value === 'object' && value !== null) {
      for (const name of keys(value)) {
        const old = value[name], spelt = spelled(old);
        if (spelt !== old) place(value, name, spelt);
      }
    }
    return value;
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
      if (kind !== null && kind !== ObjectPrototype && !isStrictProto(kind) && indexOf(output) < 0) {
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

  const NO_NOTES = { u: [], o: [], c: [], f: false };
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
      const { u: unsafe, o: overlays, c: columns, f: floats } = notes === undefined ? NO_NOTES : parse(notes);
      rows = dress(parsed, running, columns);
      for (let i = 0; i < overlays.length; i++) inside(rows[overlays[i][0]], overlays[i][1], overlays[i][2]);
      if (floats || running.always) {
        for (let i = 0; i < count; i++) fit(rows[i], running, floats);
      }
      for (let i = 0; i < unsafe.length; i++) guard(rows[unsafe[i][0]], unsafe[i][1], rows[unsafe[i][0]], unsafe[i][2]);
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
