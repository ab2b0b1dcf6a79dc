import type { DescField, DescMessage, DescMethod } from '@bufbuild/protobuf'
import { describe, expect, test } from 'vitest'
import { confinedByHandler, undeclaredIds } from '../../test/support/confinement.ts'
import { roles } from '../identity/principal.ts'
import { declaredAccess, declaredPaths } from '../server/authorize.ts'
import { declaredServices } from './declared-services.ts'
import { parsePermissionPage, permissionPage, permissionTable, roleNames } from './permission-table.ts'

const services = await declaredServices()
const methods = services.flatMap((service) => service.methods)

function nameOf(method: DescMethod): string {
  return `${method.parent.name}.${method.name}`
}

/** Paths of the fields of a request, through its messages, that are named like the id of a consumer or an organization. */
function idsIn(message: DescMessage, within: readonly DescField[] = []): string[] {
  return message.fields.flatMap((field) => {
    const path = [...within, field]
    if (field.fieldKind === 'message' && !within.some((outer) => outer.message === field.message)) {
      return idsIn(field.message, path)
    }
    return /^(consumer|organization)_id$/.test(field.name) ? [path.map(({ name }) => name).join('.')] : []
  })
}

describe.each(methods.map((method) => [nameOf(method), method] as const))('%s', (name, method) => {
  test('declares who may call it', () => {
    expect(declaredAccess(method)).not.toBe('undeclared')
  })

  test('declares every consumer and organization that its request names', () => {
    const { consumerPath, organizationPath } = declaredPaths(method)
    const declared = [consumerPath, organizationPath].map((path) => path.map((field) => field.name).join('.'))
    const missing = idsIn(method.input).filter((path) => !declared.includes(path))
    expect(missing.filter((path) => !Object.hasOwn(undeclaredIds, `${name}/${path}`))).toEqual([])
  })

  test('is confined, when a role may call it that does not reach everything', () => {
    const access = declaredAccess(method)
    const { consumerPath, organizationPath } = declaredPaths(method)
    const isOpen =
      typeof access !== 'string' &&
      roleNames.some((role) => roles[role].reach !== 'all' && roles[role].permissions.has(access.permission))
    const isConfined = consumerPath.length + organizationPath.length > 0 || Object.hasOwn(confinedByHandler, name)
    expect(!isOpen || isConfined, 'confine it, and say how in test/support/confinement.ts').toBe(true)
  })
})

test('what is said of confinement is about RPCs and fields that exist', () => {
  const names = methods.map(nameOf)
  expect(Object.keys(confinedByHandler).filter((name) => !names.includes(name))).toEqual([])
  const fields = methods.flatMap((method) => idsIn(method.input).map((path) => `${nameOf(method)}/${path}`))
  expect(Object.keys(undeclaredIds).filter((name) => !fields.includes(name))).toEqual([])
})

test('no role holds a permission that no RPC names', () => {
  const named = new Set(permissionTable(services).map(({ permission }) => permission))
  const held = roleNames.flatMap((role) => [...roles[role].permissions])
  expect(held.filter((permission) => permission !== '*' && !named.has(permission))).toEqual([])
})

test('the page says what the table says', () => {
  const table = permissionTable(services)
  const read = parsePermissionPage(permissionPage(table))
  expect(read).toEqual(new Map(table.map(({ rpc, reaches }) => [rpc, reaches])))
})
