import type { DescService } from '@bufbuild/protobuf'
import { isRole, type Reach, type Role, roles } from '../identity/principal.ts'
import { declaredAccess } from '../server/authorize.ts'

/** What each role may call, as the contract and the rights of the roles say together. */
export interface PermissionRow {
  /** "<service>.<RPC>", without the package. */
  readonly rpc: string
  /** "public": no credential is needed; "undeclared": nobody may call it. */
  readonly permission: string
  /** How far each role reaches with it; without the roles that may not call it. */
  readonly reaches: ReadonlyMap<Role, Reach>
}

/** In the order of the table's columns. */
export const roleNames: readonly Role[] = Object.keys(roles).filter(isRole)

/** A row for each RPC, by service and in the order of its proto. */
export function permissionTable(services: readonly DescService[]): PermissionRow[] {
  const sorted = services.toSorted((one, other) => (one.typeName < other.typeName ? -1 : 1))
  return sorted.flatMap((service) =>
    service.methods.map((method) => {
      const access = declaredAccess(method)
      const permission = typeof access === 'string' ? access : access.permission
      const reaches = new Map<Role, Reach>()
      for (const role of roleNames) {
        const { reach, permissions } = roles[role]
        const isHeld = access === 'public' || permissions.has(permission) || permissions.has('*')
        if (isHeld && access !== 'undeclared') reaches.set(role, reach)
      }
      return { rpc: `${service.name}.${method.name}`, permission, reaches }
    }),
  )
}

/** The table as docs/identity.md shows it. */
export function permissionPage(rows: readonly PermissionRow[]): string {
  const lines = rows.map(({ rpc, permission, reaches }) =>
    [`\`${rpc}\``, `\`${permission}\``, ...roleNames.map((role) => shown(reaches.get(role)))].join(' | '),
  )
  const head = ['RPC', 'permission', ...roleNames.map((role) => `\`${role}\``)].join(' | ')
  const rule = `|---|---|${':-:|'.repeat(roleNames.length)}`
  return [`| ${head} |`, rule, ...lines.map((line) => `| ${line} |`), ''].join('\n')
}

/** The rows that the page shows, read back from it. */
export function parsePermissionPage(page: string): Map<string, ReadonlyMap<Role, Reach>> {
  const rows = new Map<string, ReadonlyMap<Role, Reach>>()
  for (const line of page.split('\n')) {
    const [, rpc, , ...cells] = line.split('|').map((cell) => cell.trim())
    if (rpc === undefined || !/^`\w+\.\w+`$/.test(rpc)) continue
    const reaches = new Map<Role, Reach>()
    for (const [index, role] of roleNames.entries()) {
      const reach = (['all', 'organization', 'consumer'] as const).find((each) => shown(each) === cells[index])
      if (reach !== undefined) reaches.set(role, reach)
    }
    rows.set(rpc.replaceAll('`', ''), reaches)
  }
  return rows
}

function shown(reach: Reach | undefined): string {
  return reach === undefined ? '' : cells[reach]
}

const cells: Readonly<Record<Reach, string>> = { all: 'all', organization: 'org', consumer: 'own' }
