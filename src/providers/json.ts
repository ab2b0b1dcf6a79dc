/** JSON of others, read with care: what is not of the expected shape is undefined, never an exception. */

import { isObject } from '../is-object.ts'

export type JsonObject = Readonly<Record<string, unknown>>

const decoder = new TextDecoder('utf-8', { fatal: true })

/** The object that the bytes are as UTF-8 JSON; undefined for anything else. */
export function parseObject(bytes: Uint8Array): Record<string, unknown> | undefined {
  try {
    return asObject(JSON.parse(decoder.decode(bytes)))
  } catch {
    return undefined
  }
}

/** The object that the text is as JSON; undefined for anything else. */
export function parseObjectText(text: string): Record<string, unknown> | undefined {
  try {
    return asObject(JSON.parse(text))
  } catch {
    return undefined
  }
}

/** A value as an object; undefined when it is none. */
export function asObject(value: unknown): Record<string, unknown> | undefined {
  return isObject(value) ? value : undefined
}

/** A value as an array of unknowns; empty when it is none. */
export function asArray(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

/** A value as a string; empty when it is none. */
export function asString(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** Fields that are null mean the same as fields that are absent, in every protocol here. */
export function isAbsent(value: unknown): value is undefined | null {
  return value === undefined || value === null
}

const encoder = new TextEncoder()

/** UTF-8 JSON of a value. */
export function toJsonBytes(value: unknown): Uint8Array {
  return encoder.encode(JSON.stringify(value))
}
