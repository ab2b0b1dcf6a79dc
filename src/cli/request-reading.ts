/** From the words of a command line to a request, as Protobuf JSON. */
import { readFile } from 'node:fs/promises'
import type { DescMessage, JsonObject, JsonValue } from '@bufbuild/protobuf'
import { parse as parseYaml } from 'yaml'
import { isObject } from '../is-object.ts'
import { type RequestFlag, requestJson } from './request-fields.ts'

/** A flag with what it was given. */
export type GivenFlag = readonly [RequestFlag, JsonValue]

/** What a command line gives: options as commander keeps them, and the words of `positional` fields. */
export function givenFlags(
  flags: readonly RequestFlag[],
  options: Readonly<Record<string, unknown>>,
  positional: readonly string[],
  words: readonly string[],
): GivenFlag[] {
  return flags.flatMap((flag): GivenFlag[] => {
    const at = positional.indexOf(flag.protoPath)
    const given = at === -1 ? options[optionKey(flag)] : words[at]
    return given === undefined ? [] : [[flag, jsonOf(flag, given)]]
  })
}

function jsonOf(flag: RequestFlag, given: unknown): JsonValue {
  try {
    if (flag.kind === 'map') return Object.fromEntries(textsOf(given).map(pairOf))
    if (flag.kind === 'many') return textsOf(given).map((text) => flag.parse(text))
    return flag.parse(String(given))
  } catch (error) {
    throw new Error(`--${flag.name} ${error instanceof Error ? error.message : String(error)}`)
  }
}

function pairOf(text: string): [string, string] {
  const at = text.indexOf('=')
  if (at < 1) throw new Error('expects key=value')
  return [text.slice(0, at), text.slice(at + 1)]
}

function textsOf(given: unknown): string[] {
  return Array.isArray(given) ? given.map(String) : [String(given)]
}

/** As commander keeps it: in camel case. */
function optionKey({ name }: RequestFlag): string {
  return name.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

/** The whole request. An update changes what is named, and nothing else: its mask is what flags and file name. */
export function requestOf(
  request: DescMessage,
  resource: string | undefined,
  file: JsonObject,
  given: readonly GivenFlag[],
): JsonObject {
  const json = requestJson(file, given)
  const mask = request.fields.find(({ name }) => name === 'update_mask')
  const field = request.fields.find(({ name }) => name === resource)
  if (mask === undefined || field?.fieldKind !== 'message' || json[mask.jsonName] !== undefined) return json
  const body = file[field.jsonName]
  const named = isObject(body) ? Object.keys(body) : []
  for (const [{ path }] of given) if (path[0] === field.jsonName) named.push(path.slice(1).join('.'))
  const changed = [...new Set(named)].filter((name) => !identifying.has(name))
  return changed.length === 0 ? json : { ...json, [mask.jsonName]: changed.join(',') }
}

/** Say which resource it is, and which state of it was seen; they are no changes. */
const identifying: ReadonlySet<string> = new Set(['id', 'etag'])

/** The object in a JSON or YAML file; "-" is standard input. An empty one without a file. */
export async function fileOf(file: string | undefined, stdin: AsyncIterable<Buffer>): Promise<JsonObject> {
  if (file === undefined) return {}
  const text = file === '-' ? await textOf(stdin) : await readFile(file, 'utf8')
  const parsed: unknown = parseYaml(text)
  if (isObject(parsed)) return JSON.parse(JSON.stringify(parsed))
  throw new Error(`${file} holds no object`)
}

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}
