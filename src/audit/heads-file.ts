import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { isObject } from '../is-object.ts'
import { describeError, errorCode } from '../storage/postgres.ts'
import type { ChainHead } from './check-chain.ts'

/** Heads of the audit log at a moment, to be kept where nobody can write who can write to Postgres. */
export interface Anchors {
  /** ISO 8601; empty when the file does not say. */
  readonly at: string
  readonly heads: readonly ChainHead[]
}

/**
 * Reads a file that {@link writeAnchors} wrote, or that holds the line "heads of the audit log" of a gate's log. Undefined when
 * there is no such file; throws an Error whose text says what is wrong with it.
 */
export async function readAnchors(file: string): Promise<Anchors | undefined> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw new Error(`${file} could not be read: ${describeError(error)}`)
  }
  const anchors = anchorsOf(text)
  if (anchors === undefined) {
    throw new Error(`${file} holds no heads: give a file that --heads wrote, or one line of a gate's log`)
  }
  return anchors
}

/** Writes the file as a whole, or not at all. */
export async function writeAnchors(file: string, anchors: Anchors): Promise<void> {
  const draft = `${file}.${process.pid}`
  try {
    await writeFile(draft, `${JSON.stringify(anchors)}\n`)
    await rename(draft, file)
  } catch (error) {
    await rm(draft, { force: true })
    throw new Error(`${file} could not be written: ${describeError(error)}`)
  }
}

function anchorsOf(text: string): Anchors | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (!isObject(value) || !Array.isArray(value.heads) || !value.heads.every(isHead)) return undefined
    const at = typeof value.at === 'string' ? value.at : ''
    return { at, heads: value.heads.map(({ chain, length, hash }) => ({ chain, length, hash })) }
  } catch {
    return undefined
  }
}

function isHead(value: unknown): value is ChainHead {
  if (!isObject(value)) return false
  const { chain, length, hash } = value
  return Number.isSafeInteger(chain) && Number.isSafeInteger(length) && typeof hash === 'string'
}
