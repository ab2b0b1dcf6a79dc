/** What Postgres is sent: `$1` in the text stands for the first of `values`. */
export interface StatementText {
  readonly text: string
  readonly values: readonly unknown[]
  /** Of a statement that is prepared. */
  readonly name?: string | undefined
}

/** A part of a statement: text, with values between its pieces. A value that is a fragment is text, too. */
export class Fragment {
  readonly #strings: readonly string[]
  readonly #values: readonly unknown[]

  constructor(strings: readonly string[], values: readonly unknown[] = []) {
    this.#strings = strings
    this.#values = values
  }

  /** Throws TypeError for a value of `undefined`, which is a mistake more often than a null. */
  compile(): StatementText {
    const values: unknown[] = []
    return { text: this.#appendTo(values), values }
  }

  #appendTo(values: unknown[]): string {
    return this.#strings.reduce((text, after, index) => {
      const value = this.#values[index - 1]
      if (value instanceof Fragment) return text + value.#appendTo(values) + after
      if (value === undefined) throw new TypeError(`A statement has an undefined value after "${text.slice(-40)}".`)
      return `${text}$${values.push(value)}${after}`
    })
  }
}

/** A name in double quotes: of a table, a column, a partition. */
export function identifier(name: string): Fragment {
  return new Fragment([quoted(name)])
}

/** `("column", …) values (…), (…)` of at least one record. Columns are the fields of the first; all must have them. */
export function insertion(records: readonly object[]): Fragment {
  const columns = Object.keys(records[0] ?? {})
  const between = columns.slice(1).map(() => ', ')
  const rows = records.map((record) => {
    const fields = new Map<string, unknown>(Object.entries(record))
    return new Fragment(
      ['(', ...between, ')'],
      columns.map((column) => fields.get(column)),
    )
  })
  return new Fragment([`(${columns.map(quoted).join(', ')}) values `, ...rows.slice(1).map(() => ', '), ''], rows)
}

/** `"column" = …, …` of one record, for an update. */
export function assignments(record: object): Fragment {
  const columns = Object.keys(record)
  const strings = columns.map((column, index) => `${index === 0 ? '' : ', '}${quoted(column)} = `)
  return new Fragment([...strings, ''], Object.values(record))
}

/**
 * A statement that runs when it is awaited, once, or becomes a part of another one that it is put into. One that nobody
 * awaits never runs.
 */
export class Statement<T> extends Fragment implements PromiseLike<T> {
  readonly #run: (statement: StatementText) => Promise<T>
  #name: string | undefined
  #running: Promise<T> | undefined

  constructor(strings: readonly string[], values: readonly unknown[], run: (statement: StatementText) => Promise<T>) {
    super(strings, values)
    this.#run = run
  }

  /**
   * Has Postgres parse it once on each connection, under this name, and plan it anew only as long as that pays. For a long
   * statement that runs often, with the same text each time.
   */
  prepared(name: string): this {
    this.#name = name
    return this
  }

  // biome-ignore lint/suspicious/noThenProperty: it is awaited where its rows are wanted
  then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#start().then(onFulfilled, onRejected)
  }

  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<T | B> {
    return this.#start().catch(onRejected)
  }

  async #compileAndRun(): Promise<T> {
    return this.#run({ ...this.compile(), name: this.#name })
  }

  #start(): Promise<T> {
    this.#running ??= this.#compileAndRun()
    return this.#running
  }
}

/**
 * Runs statements, which are tagged templates: what stands in `${…}` becomes a parameter, never text. Also in a template:
 * another template, as a part with parameters of its own; `sql('name')`, an identifier; `sql(record)` or `sql(records)`,
 * columns and values of an insert; `sql.json(value)`, which an array needs to become JSON and not an array of Postgres.
 *
 * Rows are plain objects. `int8` columns arrive as numbers and must be safe integers: counts, milliseconds and nano-units
 * stay far below 2^53, and a value beyond it fails its query instead of losing digits. `sum(int8)` is `numeric` and
 * arrives as text: cast it (`sum(x)::int8`). `date` arrives as text, too.
 */
export interface Statements {
  <T extends readonly unknown[] = Record<string, unknown>[]>(
    strings: TemplateStringsArray,
    ...values: readonly unknown[]
  ): Statement<Rows<T>>
  (name: string): Fragment
  (records: object | readonly object[]): Fragment
  json(value: unknown): string
  /** Text that is no template; several statements at once where it has no parameters. */
  unsafe(text: string): Promise<void>
}

/** What a statement returned, and how many rows it returned or changed. */
export type Rows<T> = T & { readonly count: number }

/** Runs a statement; which rows it returns is for its author to say. */
export type RunStatement = <T extends readonly unknown[]>(statement: StatementText) => Promise<Rows<T>>

/** Makes statements that `run` runs. */
export function statements(run: RunStatement): Statements {
  function sql<T extends readonly unknown[]>(
    strings: TemplateStringsArray,
    ...values: readonly unknown[]
  ): Statement<Rows<T>>
  function sql(first: string | object): Fragment
  function sql<T extends readonly unknown[]>(first: TemplateStringsArray | string | object, ...values: unknown[]) {
    if (typeof first === 'string') return identifier(first)
    if (isTemplate(first)) return new Statement<Rows<T>>(first, values, run)
    return insertion(Array.isArray(first) ? first : [first])
  }
  return Object.assign(sql, {
    json: (value: unknown) => JSON.stringify(value),
    unsafe: async (text: string) => {
      await run({ text, values: [] })
    },
  })
}

function isTemplate(value: object): value is TemplateStringsArray {
  return Array.isArray(value) && 'raw' in value
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
