/**
 * Precedence of two semantic versions (https://semver.org/#spec-item-11): negative, zero or positive like a sort
 * function. Build metadata is ignored. Both must be valid; the contract's pattern sees to it.
 */
export function compareVersions(a: string, b: string): number {
  const left = split(a)
  const right = split(b)
  const core = compareLists(left.core, right.core)
  if (core !== 0) return core
  // A version without pre-release part comes after all of its pre-releases.
  if (left.pre.length === 0 || right.pre.length === 0) return right.pre.length - left.pre.length
  return compareLists(left.pre, right.pre)
}

/** Whether a version is no pre-release. */
export function isRelease(version: string): boolean {
  return split(version).pre.length === 0
}

function split(version: string): { core: string[]; pre: string[] } {
  const [withoutBuild = ''] = version.split('+', 1)
  const dash = withoutBuild.indexOf('-')
  if (dash === -1) return { core: withoutBuild.split('.'), pre: [] }
  return { core: withoutBuild.slice(0, dash).split('.'), pre: withoutBuild.slice(dash + 1).split('.') }
}

function compareLists(a: readonly string[], b: readonly string[]): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const left = a[i]
    const right = b[i]
    if (left === undefined) return -1
    if (right === undefined) return 1
    const order = compareIdentifiers(left, right)
    if (order !== 0) return order
  }
  return 0
}

function compareIdentifiers(a: string, b: string): number {
  const numericA = /^\d+$/.test(a)
  const numericB = /^\d+$/.test(b)
  // BigInt, because the grammar bounds no number.
  if (numericA && numericB) return BigInt(a) < BigInt(b) ? -1 : BigInt(a) > BigInt(b) ? 1 : 0
  if (numericA !== numericB) return numericA ? -1 : 1
  return a < b ? -1 : a > b ? 1 : 0
}
