import { type DescMessage, fromJson, type JsonObject, type JsonValue, type Message, toJson } from '@bufbuild/protobuf'
import type { Transport } from '@connectrpc/connect'
import { isObject } from '../is-object.ts'
import type { CommandRow } from './command-row.ts'
import { spokenNames } from './enum-names.ts'
import { recordText, tableText } from './print.ts'

export interface RunOptions {
  readonly transport: Transport
  readonly json: boolean
  /** Of commands that list: at most this many rows, over as many pages as it takes. */
  readonly limit: number
  readonly timeoutMs: number
  readonly signal: AbortSignal
  write(text: string): void
}

/** Makes the call of a row and writes its answer. Throws ConnectError, and Error for a request that is none. */
export async function runRow(row: CommandRow, request: JsonObject, options: RunOptions): Promise<void> {
  if (row.method.methodKind === 'server_streaming') return follow(row, request, options)
  if (row.rows !== undefined) return list(row, request, row.rows, options)
  const answer = await ask(row, request, options)
  options.write(options.json ? jsonText(answer) : recordText(answer, spokenNames(row.method.output)))
}

async function list(
  row: CommandRow,
  request: JsonObject,
  { field, columns }: NonNullable<CommandRow['rows']>,
  options: RunOptions,
): Promise<void> {
  const isPaged = row.method.input.fields.some(({ name }) => name === 'page_size')
  const found: JsonValue[] = []
  let pageToken: JsonValue = ''
  do {
    const pageSize = Math.min(options.limit - found.length, maxPageSize)
    const page = await ask(row, isPaged ? { ...request, pageSize, pageToken } : request, options)
    const rows = isObject(page) ? page[field] : undefined
    if (Array.isArray(rows)) found.push(...rows)
    pageToken = isObject(page) && typeof page.nextPageToken === 'string' ? page.nextPageToken : ''
  } while (pageToken !== '' && found.length < options.limit)
  options.write(options.json ? jsonText(found) : tableText(found, columns, spokenNames(row.method.output)))
  if (pageToken !== '' && !options.json) options.write(`… and more: --limit shows up to so many\n`)
}

/** The contract's ceiling. */
const maxPageSize = 1_000

async function ask({ method }: CommandRow, request: JsonObject, options: RunOptions): Promise<JsonValue> {
  if (method.methodKind !== 'unary') throw new Error(`${method} answers with a stream`)
  const { transport, signal, timeoutMs } = options
  const response = await transport.unary(method, signal, timeoutMs, undefined, messageOf(method.input, request))
  return toJson(method.output, response.message)
}

/** One line of JSON a message, until the gate or the user ends it. */
async function follow({ method }: CommandRow, request: JsonObject, options: RunOptions): Promise<void> {
  if (method.methodKind !== 'server_streaming') throw new Error(`${method} answers once`)
  const input = messageOf(method.input, request)
  const once = async function* (): AsyncIterable<typeof input> {
    yield input
  }
  const response = await options.transport.stream(method, options.signal, undefined, undefined, once())
  for await (const message of response.message) options.write(`${JSON.stringify(toJson(method.output, message))}\n`)
}

function messageOf(schema: DescMessage, json: JsonObject): Message {
  try {
    return fromJson(schema, json)
  } catch (error) {
    throw new Error(`the request cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function jsonText(value: JsonValue): string {
  return `${JSON.stringify(value, null, 2)}\n`
}
