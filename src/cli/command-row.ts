import type { DescMethodServerStreaming, DescMethodUnary, JsonObject } from '@bufbuild/protobuf'

/**
 * One command of the administration, as data: which RPC it calls and how its request is read from the command line. Flags
 * come from the fields of the request, so that a field that the contract gains is a flag at once.
 */
export interface CommandRow {
  /** Group and verb, such as "keys create". */
  readonly name: `${string} ${string}`
  readonly summary: string
  readonly method: DescMethodUnary | DescMethodServerStreaming
  /** Request fields that are given without a flag, in this order, by their proto names. */
  readonly positional?: readonly string[]
  /** Request field whose own fields are flags, by its proto name: the resource of a create or update. */
  readonly resource?: string
  /** Flag values of fields that the caller leaves out, as Protobuf JSON. */
  readonly defaults?: Readonly<Record<string, string | number>>
  /** Of commands that list: the field of the answer with the rows, and the columns of a table, as paths of JSON names. */
  readonly rows?: { readonly field: string; readonly columns: readonly string[] }
  /** Asked before something is done that cannot be undone; of a request, where not all are such. */
  readonly warning?: string | ((request: JsonObject) => string | undefined)
  /** Said on stderr after success. */
  readonly afterword?: string
}
