import { type CelInput, celMap } from '@bufbuild/cel'
import type { RequestFacts } from './facts.ts'

type Value = (request: RequestFacts, text: () => string) => CelInput

/** Each field of `request`, worked out when an expression reads it: most read one or two. */
const values: ReadonlyMap<string, Value> = new Map<string, Value>([
  ['model', ({ model }) => model],
  ['kind', ({ kind }) => kind],
  ['stream', ({ stream }) => stream],
  ['size', ({ size }) => BigInt(size)],
  ['input_tokens', ({ inputTokens }) => BigInt(inputTokens)],
  ['max_output_tokens', ({ maxOutputTokens }) => BigInt(maxOutputTokens)],
  ['cost_nanos', ({ costNanos }) => BigInt(costNanos)],
  ['currency', ({ currency }) => currency],
  ['metadata', ({ metadata }) => metadataValue(metadata)],
  ['key_id', ({ keyId }) => keyId],
  ['user_agent', ({ userAgent }) => userAgent],
  ['text', (_request, text) => text()],
])

/** Most requests have none. */
const noMetadata = celMap(new Map())

function metadataValue(metadata: RequestFacts['metadata']): CelInput {
  const entries = Object.entries(metadata)
  return entries.length === 0 ? noMetadata : celMap(new Map(entries))
}

/** The fields of `request` as a map that holds nothing. */
export class RequestValues implements ReadonlyMap<string, CelInput> {
  readonly #request: RequestFacts
  readonly #text: () => string

  constructor(request: RequestFacts, text: () => string) {
    this.#request = request
    this.#text = text
  }

  get size(): number {
    return values.size
  }

  get(name: string): CelInput | undefined {
    return values.get(name)?.(this.#request, this.#text)
  }

  has(name: string): boolean {
    return values.has(name)
  }

  keys(): MapIterator<string> {
    return values.keys()
  }

  *values(): MapIterator<CelInput> {
    for (const value of values.values()) yield value(this.#request, this.#text)
  }

  *entries(): MapIterator<[string, CelInput]> {
    for (const [name, value] of values) yield [name, value(this.#request, this.#text)]
  }

  [Symbol.iterator](): MapIterator<[string, CelInput]> {
    return this.entries()
  }

  forEach(visit: (value: CelInput, name: string, map: ReadonlyMap<string, CelInput>) => void): void {
    for (const [name, value] of this) visit(value, name, this)
  }
}
