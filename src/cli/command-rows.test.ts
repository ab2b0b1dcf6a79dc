import type { DescMethod } from '@bufbuild/protobuf'
import { Command } from 'commander'
import { describe, expect, test } from 'vitest'
import { declaredServices } from '../tools/declared-services.ts'
import { addAdministration, type Terminal } from './administration.ts'
import { commandRows } from './command-rows.ts'
import { candidates } from './completion.ts'
import { flagsOf } from './request-fields.ts'

const terminal: Terminal = {
  env: {},
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  interruption: () => new AbortController().signal,
}
const program = new Command('tollgate')
addAdministration(program, terminal, () => {})
const services = await declaredServices()
const common = ['address', 'profile', 'key-file', 'ca-file', 'file', 'json', 'timeout', 'limit', 'yes', 'help']

describe.each(commandRows.map((row) => [row.name, row] as const))('tollgate %s', (name, row) => {
  const flags = flagsOf(row.method.input, row.resource)

  test('has flags of its own names', () => {
    const names = flags.map((flag) => flag.name)
    expect(new Set(names).size).toBe(names.length)
    expect(names.filter((each) => common.includes(each))).toEqual([])
  })

  test('takes what its request has, and shows what its answer has', () => {
    for (const path of row.positional ?? []) expect(flags.map(({ protoPath }) => protoPath)).toContain(path)
    if (row.resource !== undefined) {
      expect(row.method.input.fields.find((field) => field.name === row.resource)?.fieldKind).toBe('message')
    }
    if (row.rows === undefined) return
    const { field, columns } = row.rows
    const rows = row.method.output.fields.find((each) => each.jsonName === field)
    for (const column of columns) {
      let message = rows?.message
      for (const part of column.split('.')) {
        const found = message?.fields.find((each) => each.jsonName === part)
        expect(found, `${column} of ${name}`).toBeDefined()
        message = found?.message
      }
    }
  })
})

describe('closing is final, and asks first', () => {
  test.each(['orgs', 'projects', 'users', 'consumers'])('%s update', (group) => {
    const { warning, resource = '' } = commandRows.find(({ name }) => name === `${group} update`) ?? {}
    if (typeof warning !== 'function') throw new Error('it never asks')
    const kind = resource.toUpperCase()
    expect(warning({ [resource]: { status: `${kind}_STATUS_CLOSED` } })).toContain('from now on')
    expect(warning({ [resource]: { status: 3 } })).toContain('from now on')
    expect(warning({ [resource]: { status: `${kind}_STATUS_SUSPENDED` } })).toBeUndefined()
    expect(warning({ [resource]: { name: 'x' } })).toBeUndefined()
    expect(warning({})).toBeUndefined()
  })
})

describe('every RPC has a command, or a reason to have none', () => {
  const called = new Set<DescMethod>(commandRows.map(({ method }) => method))
  test.each(services.flatMap(({ methods }) => methods.map((method) => [String(method), method] as const)))(
    '%s',
    (_, method) => {
      const reason = elsewhere.get(method.parent.name) ?? elsewhere.get(method.name)
      expect(called.has(method)).toBe(reason === undefined)
    },
  )
})

/** Services and RPCs that are called in another way. */
const elsewhere: ReadonlyMap<string, string> = new Map([
  ['MarketplaceApi', 'is the HTTP API of other RPCs'],
  ['RegistryApi', 'is Registry in the words of reference 004'],
  ['RouteRequest', 'is what the gate is for: docs/integrations.md shows how'],
  ['StreamRequest', 'as RouteRequest'],
  ['EstimateCost', 'takes the body of a call'],
  ['CheckQuota', 'is GetQuota for callers of reference 004'],
  ['ValidateConsumption', 'takes the body of a call'],
  ['ReportViolation', 'is for programs that find violations'],
])

describe('completion', () => {
  test.each([
    [['ke'], ['keys']],
    [['keys', 'c'], ['create']],
    [['keys', 'revoke', '--y'], ['--yes']],
    [['consumers', 'create', '--tier', 'p'], ['premium']],
    [['consumers', 'create', '--address', ''], []],
    [['nothing', 'of', 'the', 'kind', 'zz'], []],
  ])('of %j is %j', (words, expected) => {
    expect(candidates(program, words)).toEqual(expected)
  })
})
