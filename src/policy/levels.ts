import { classifications } from '../registry/classification.ts'

const names: readonly string[] = classifications

/** The rank of a data classification, 0 for "public"; none stated counts as public. Undefined for any other name. */
export function levelOf(name: string): number | undefined {
  const rank = name === '' ? 0 : names.indexOf(name)
  return rank < 0 ? undefined : rank
}
