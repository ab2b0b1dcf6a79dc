import type { Logger } from 'pino'
import { within } from '../within.ts'
import { answerWhole, pathOf, type Request, type Response } from './answer.ts'

/** One plain HTTP answer, such as that of `/metrics`. */
export interface Page {
  readonly status: number
  readonly contentType: string
  readonly body: string
}

/** Pages by path. A page has 10 seconds, then the caller gets 503. */
export type Pages = Readonly<Record<string, () => Promise<Page>>>

/** Answers what is no RPC: GET and HEAD of the pages; 404 as JSON for the rest, 405 for other methods of a page. */
export function createPages(pages: Pages, log: Logger): (request: Request, response: Response) => Promise<void> {
  const known = new Map(Object.entries(pages))
  return async (request, response) => {
    const path = pathOf(request)
    const page = known.get(path)
    if (page === undefined) return await answerJson(request, response, 404, 'not_found', 'there is nothing here')
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD')
      return await answerJson(request, response, 405, 'unimplemented', 'this page answers GET and HEAD only')
    }
    try {
      const { status, contentType, body } = await within(pageTimeoutMs, page())
      await answerWhole(request, response, status, { 'content-type': contentType, 'cache-control': 'no-store' }, body)
    } catch (err) {
      log.error({ err, path }, 'page failed')
      await answerJson(request, response, 503, 'unavailable', 'this page cannot be made at the moment')
    }
  }
}

/** Answers an error in the JSON form of the Connect protocol. */
export async function answerJson(
  request: Request,
  response: Response,
  status: number,
  code: string,
  message: string,
): Promise<void> {
  await answerWhole(
    request,
    response,
    status,
    { 'content-type': 'application/json' },
    JSON.stringify({ code, message }),
  )
}

const pageTimeoutMs = 10_000
