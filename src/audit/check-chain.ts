/**
 * Whether a chain of the audit log is whole. Three things hold of a whole one, and whoever changes a record by hand breaks at
 * least one of them:
 *
 * - each record hashes to its **own hash**: it says what it said, and stands where it stood;
 * - it names the hash of the record before it: that is the **link**;
 * - sequences run from 1 without a gap up to the length that the **head** of the chain states, and the last hash is the head's.
 *
 * Whoever may write everything can compute all of it anew. Against that there are **anchors**: heads of an earlier time, which
 * are kept elsewhere. A chain that was written anew from some record on does not have the hash that an anchor after it states.
 */
import { type AuditRecord, auditHash } from './audit-record.ts'

/** A chain's end: how many records it has, and the hash of the last one; empty without any. */
export interface ChainHead {
  readonly chain: number
  readonly length: number
  readonly hash: string
}

/** What is wrong with a place in a chain. */
export interface ChainFinding {
  readonly kind: FindingKind
  readonly chain: number
  /** Place of the record; of missing ones the first. */
  readonly sequence: number
  /** Id of the record; empty when it is not there. */
  readonly id: string
  /** What is wrong, in words. */
  readonly detail: string
}

export type FindingKind = 'changed' | 'replaced' | 'missing' | 'inserted' | 'head' | 'anchor'

/** A record as it is stored. */
export interface StoredRecord {
  readonly record: AuditRecord
  readonly hash: string
}

/** Checks one chain, record by record in the order of their sequences; `onFinding` is told in that order, too. */
export class ChainCheck {
  readonly #head: ChainHead | undefined
  readonly #anchor: ChainHead | undefined
  readonly #chain: number
  readonly #onFinding: (finding: ChainFinding) => void
  #last: { readonly sequence: number; readonly id: string; readonly hash: string } = { sequence: 0, id: '', hash: '' }
  /** Whether something was found of the last record, so that what follows from it is not found again. */
  #isKnown = false

  /** `head` undefined: the chain has none any more. `anchor` undefined: nothing is known of an earlier time. */
  constructor(
    chain: number,
    head: ChainHead | undefined,
    anchor: ChainHead | undefined,
    onFinding: (finding: ChainFinding) => void,
  ) {
    this.#chain = chain
    this.#head = head
    this.#anchor = anchor
    this.#onFinding = onFinding
  }

  next({ record, hash }: StoredRecord): void {
    const { sequence, id } = record
    const due = this.#last.sequence + 1
    if (sequence < due) {
      this.#find('inserted', sequence, id, 'stands where no record, or another one, belongs')
      return
    }
    const hasGap = sequence > due
    if (hasGap) this.#find('missing', due, '', missing(due, sequence - 1))
    const isWhole = auditHash(record) === hash
    if (!isWhole) this.#find('changed', sequence, id, 'does not say what its hash was made of, or stood elsewhere')
    else if (!hasGap && record.previousHash !== this.#last.hash) this.#findBrokenLink(sequence, id)
    if (this.#head !== undefined && sequence > this.#head.length) {
      this.#find('inserted', sequence, id, `stands behind the end of its chain, which has ${this.#head.length}`)
    }
    if (sequence === this.#anchor?.length && hash !== this.#anchor.hash) {
      this.#find(
        'anchor',
        sequence,
        id,
        'had another hash when its anchor was taken: it or one before it was rewritten',
      )
    }
    this.#isKnown = !isWhole
    this.#last = { sequence, id, hash }
  }

  /** To be called after the last record. */
  end(): void {
    const { sequence, id, hash } = this.#last
    const due = sequence + 1
    const head = this.#head
    if (head === undefined) {
      this.#find('head', sequence, id, 'the chain has no head any more, so that nobody knows where it ended')
    } else if (sequence < head.length) {
      this.#find('missing', due, '', `${missing(due, head.length)}: the end of the chain is cut off`)
    } else if (sequence === head.length && hash !== head.hash && !this.#isKnown) {
      this.#find('head', sequence, id, 'does not have the hash that the head of its chain states')
    }
    const anchored = this.#anchor?.length ?? 0
    if (sequence < anchored && (head === undefined || head.length < anchored)) {
      this.#find('anchor', due, '', `${missing(due, anchored)}, which were there when the anchor was taken`)
    }
  }

  /** The record before it has another hash than it had, or is another one; or there was none. */
  #findBrokenLink(sequence: number, id: string): void {
    const { sequence: before, id: beforeId } = this.#last
    if (this.#isKnown) return
    if (before === 0) this.#find('replaced', sequence, id, 'follows a record, but is the first of its chain')
    else
      this.#find('replaced', before, beforeId, 'is not what the next one follows: it, or more before it, was rewritten')
  }

  #find(kind: FindingKind, sequence: number, id: string, detail: string): void {
    this.#onFinding({ kind, chain: this.#chain, sequence, id, detail })
  }
}

function missing(first: number, last: number): string {
  return first === last ? `record ${first} is missing` : `records ${first} to ${last} are missing`
}
