import type { Logger } from 'pino'
import { within } from '../within.ts'
import { answerWhole } from './answer.ts'
import { AnswerHeaders } from './answer-headers.ts'
import type { Exchange } from './exchange.ts'

/** One plain HTTP answer, such as that of `/metrics`. */
export interface Page {
  readonly status: number
  readonly contentType: string
  readonly body: string
}

/** Pages by path. A page has 10 seconds, then the caller gets 503. */
export type Pages = Readonly<Record<string, () => Promise<Page>>>

/** Answers what is no RPC: GET and HEAD of the pages; 404 as JSON for the rest, 405 for other methods of a page. */
export function createPages(pages: Pages, log: Logger): (exchange: Exchange) => Promise<void> {
  const known = new Map(Object.entries(pages))
  return async (exchange) => {
    const { path, method } = exchange
    const page = known.get(path)
    if (page === undefined) return await answerJson(exchange, 404, 'not_found', 'there is nothing here')
    if (method !== 'GET' && method !== 'HEAD') {
      exchange.setHeader('allow', 'GET, HEAD')
      return await answerJson(exchange, 405, 'unimplemented', 'this page answers GET and HEAD only')
    }
    try {
      const { status, contentType, body } = await within(pageTimeoutMs, page())
      const headers = new AnswerHeaders(['content-type', contentType, 'cache-control', 'no-store'])
      await answerWhole(exchange, status, headers, body)
    } catch (err) {
      log.error({ err, path }, 'page failed')
      await answerJson(exchange, 503, 'unavailable', 'this page cannot be made at the moment')
    }
  }
}

/** Answers an error in the JSON form of the Connect protocol. */
export async function answerJson(exchange: Exchange, status: number, code: string, message: string): Promise<void> {
  const headers = new AnswerHeaders(['content-type', 'application/json'])
  await answerWhole(exchange, status, headers, JSON.stringify({ code, message }))
}

const pageTimeoutMs = 10_000
