import type { JsonValue } from '@bufbuild/protobuf'
import { isObject } from '../is-object.ts'

/** Names of the contract to what is shown in their place, such as TIER_PREMIUM to "premium". */
export type Spoken = ReadonlyMap<string, string>

/**
 * Rows under their columns, as wide as they need to be. A column is a path of names such as "usage.inputTokens"; its title is
 * the last of them, in words. What a row does not have is "-".
 */
export function tableText(rows: readonly JsonValue[], columns: readonly string[], spoken: Spoken = new Map()): string {
  if (rows.length === 0) return 'none\n'
  const titles = columns.map((column) => wordsOf(column.slice(column.lastIndexOf('.') + 1)).toUpperCase())
  const lines = [titles, ...rows.map((row) => columns.map((column) => cellText(valueAt(row, column), spoken)))]
  const widths = titles.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines
    .map(
      (line) =>
        `${line
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

/** One answer, a line a field, and what is within a field below it. */
export function recordText(value: JsonValue, spoken: Spoken = new Map(), indent = ''): string {
  if (!isObject(value)) return `${indent}${cellText(value, spoken)}\n`
  const fields = Object.entries(value)
  if (fields.length === 0) return `${indent}done\n`
  const width = Math.max(...fields.map(([name]) => wordsOf(name).length))
  return fields.map(([name, each]) => fieldText(wordsOf(name), each, width, indent, spoken)).join('')
}

function fieldText(name: string, value: unknown, width: number, indent: string, spoken: Spoken): string {
  if (isObject(value)) return `${indent}${name}:\n${recordText(asJson(value), spoken, `${indent}  `)}`
  if (Array.isArray(value) && value.some(isObject)) {
    const items = value.map((item) => `${indent}  -\n${recordText(asJson(item), spoken, `${indent}    `)}`)
    return `${indent}${name}:\n${items.join('')}`
  }
  return `${indent}${`${name}:`.padEnd(width + 2)}${cellText(value, spoken)}\n`
}

/** "createTime" as "create time". */
function wordsOf(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)
}

function valueAt(row: JsonValue, path: string): unknown {
  let value: unknown = row
  for (const name of path.split('.')) value = isObject(value) ? value[name] : undefined
  return value
}

/** Nothing that an answer holds may move the cursor or paint: control characters are shown as what they are. */
function cellText(value: unknown, spoken: Spoken): string {
  if (value === undefined || value === null || value === '') return '-'
  if (Array.isArray(value)) return value.map((item) => cellText(item, spoken)).join(', ')
  const text = isObject(value) ? JSON.stringify(value) : String(value)
  const shown = spoken.get(text) ?? text
  return shown.replace(controls, (control) => `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const controls = /[\u0000-\u001f\u007f-\u009f]/g

function asJson(value: unknown): JsonValue {
  return JSON.parse(JSON.stringify(value))
}
