import { ContentKind, type ContentRule } from '../../../gen/marketplace/v1/policy_pb.ts'
import { compilePattern } from '../cel/patterns.ts'
import { type Finder, findCards, findEmails, findIbans, type Span } from './personal.ts'
import { findSecrets } from './secrets.ts'
import { type Replacement, type Texts, textsOf } from './texts.ts'

/** What is sent, read when the first policy asks for it, and once. */
export interface Content {
  readonly texts: Texts
  /** Characters of all texts. */
  readonly length: number
}

export function contentOf(payload: Uint8Array): Content {
  const texts = textsOf(payload)
  return { texts, length: texts.texts.reduce((sum, { value }) => sum + value.length, 0) }
}

/** What a request says: its texts, one a line. */
export function textOf({ texts }: Content): string {
  return texts.texts.map(({ value }) => value).join('\n')
}

/** Something that is looked for, and its name in marks. */
interface Named {
  readonly name: string
  readonly find: Finder
}

/** What a rule found: the names in the rule's order, and where to write what instead. */
export interface Findings {
  readonly names: readonly string[]
  readonly replacements: readonly Replacement[]
}

/** Looks for what a rule names. */
export type Scanner = (content: Content) => Findings

/** Throws PatternError. */
export function compileScanner({ kinds, patterns }: Pick<ContentRule, 'kinds' | 'patterns'>): Scanner {
  const wanted: Named[] = [
    ...kinds.flatMap((kind) => knownKinds[kind] ?? []),
    ...patterns.map(({ name, regex }) => ({ name, find: patternFinder(regex) })),
  ]
  return ({ texts }) => {
    const names = new Set<string>()
    const replacements: Replacement[] = []
    for (const { name, find } of wanted) {
      for (const text of texts.texts) {
        for (const span of find(text.value)) {
          names.add(name)
          replacements.push({ text, ...span, by: `[redacted:${name}]` })
        }
      }
    }
    return { names: [...names], replacements }
  }
}

const knownKinds: Readonly<Record<ContentKind, Named | undefined>> = {
  [ContentKind.UNSPECIFIED]: undefined,
  [ContentKind.EMAIL]: { name: 'email', find: findEmails },
  [ContentKind.IBAN]: { name: 'iban', find: findIbans },
  [ContentKind.PAYMENT_CARD]: { name: 'payment_card', find: findCards },
  [ContentKind.SECRET]: { name: 'secret', find: findSecrets },
}

function patternFinder(source: string): Finder {
  const { regex } = compilePattern(source)
  return (text) => {
    // Whether there is a match is found out much faster than where.
    if (!regex.test(text)) return []
    const matcher = regex.matcher(text)
    const found: Span[] = []
    while (matcher.find()) {
      // Nothing can be taken out of nothing.
      if (matcher.end() > matcher.start()) found.push({ start: matcher.start(), end: matcher.end() })
    }
    return found
  }
}
