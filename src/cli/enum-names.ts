import type { DescEnum, DescMessage } from '@bufbuild/protobuf'

/** Names of an enum's values as people write them, to those of the contract: "premium" is TIER_PREMIUM. */
export function shortNames({ values }: DescEnum): ReadonlyMap<string, string> {
  const [zero = ''] = values.map(({ name }) => name)
  const prefix = zero.endsWith('_UNSPECIFIED') ? zero.slice(0, -'UNSPECIFIED'.length) : ''
  return new Map(
    values
      .filter(({ number }) => number !== 0)
      .map(({ name }) => [name.replace(prefix, '').toLowerCase().replaceAll('_', '-'), name]),
  )
}

/** The other way round, for all enums that a message can hold: what an answer says is shown as it is written. */
export function spokenNames(message: DescMessage): ReadonlyMap<string, string> {
  const names = new Map<string, string>()
  const seen = new Set<DescMessage>()
  const visit = (each: DescMessage): void => {
    if (seen.has(each)) return
    seen.add(each)
    for (const field of each.fields) {
      if (field.enum !== undefined) for (const [short, name] of shortNames(field.enum)) names.set(name, short)
      if (field.message !== undefined) visit(field.message)
    }
  }
  visit(message)
  return names
}
