import type { JsonObject, JsonValue } from '@bufbuild/protobuf'
import { isObject } from '../is-object.ts'
import { asArray, asString } from '../providers/json.ts'
import type { RegistrationJson } from './read-registration.ts'

/** A service as an outside registry lists it; what it says of itself is not looked at yet. */
export interface ListedEntry extends RegistrationJson {
  /** What the registry calls it. */
  readonly id: string
  readonly providerId: string
}

/** One page of a list. */
export interface ListedPage {
  readonly entries: readonly ListedEntry[]
  /** How many things in it are no entries: without an id, a name or a version. */
  readonly nameless: number
  /** Empty on the last page. */
  readonly nextPageToken: string
}

/** A page of JSON: `{"services": […], "next_page_token": ""}`, or an array; undefined for anything else. */
export function listedPage(json: unknown): ListedPage | undefined {
  const list = Array.isArray(json) ? json : isObject(json) ? json.services : undefined
  if (!Array.isArray(list)) return undefined
  const entries = list.flatMap((each: unknown) => {
    const entry = listedEntry(each)
    return entry === undefined ? [] : [entry]
  })
  const nextPageToken = isObject(json) ? asString(json.next_page_token) : ''
  return { entries, nameless: list.length - entries.length, nextPageToken }
}

function listedEntry(value: unknown): ListedEntry | undefined {
  if (!isObject(value)) return undefined
  const { id, name, version, provider_id: providerId, capabilities, metadata } = value
  const names = [id, name, version].map(asString)
  if (names.some((text) => text === '' || text.length > longestName)) return undefined
  const [entryId = '', entryName = '', entryVersion = ''] = names
  return {
    id: entryId,
    name: entryName,
    version: entryVersion,
    providerId: asString(providerId).slice(0, longestName),
    capabilities: asArray(capabilities).flatMap((each) => {
      if (!isObject(each) || typeof each.name !== 'string') return []
      return [{ name: each.name, value: isJson(each.value) ? each.value : true }]
    }),
    metadata: isJsonObject(metadata) ? metadata : {},
  }
}

const longestName = 256

/** What was parsed as JSON is JSON, as far as it is there. */
function isJson(value: unknown): value is JsonValue {
  return value !== undefined && value !== null
}

function isJsonObject(value: unknown): value is JsonObject {
  return isObject(value)
}
