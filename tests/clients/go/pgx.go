// pgx: its statement cache and binary formats, batches, pool, COPY, cancel by context, and database/sql on top.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgtype"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
	_ "github.com/jackc/pgx/v4/stdlib"
)

var (
	org         = os.Getenv("PARTYWALL_ORG")
	times       = number("PARTYWALL_TIMES", 1000)
	connections = number("PARTYWALL_CONNECTIONS", 20)
	rowCount    = number("PARTYWALL_ROWS", 5000)
	failed      = false
	background  = context.Background()
)

const insert = "INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ($1, $2, 'o', 's')"

func number(name string, otherwise int) int {
	if value, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return value
	}
	return otherwise
}

func group(name string, work func()) {
	if wanted := os.Getenv("PARTYWALL_GROUPS"); wanted != "" && !strings.Contains(","+wanted+",", ","+name+",") {
		return
	}
	defer func() {
		if err := recover(); err != nil {
			failed = true
			fmt.Printf("FAIL %s: %s\n", name, strings.Join(strings.Fields(fmt.Sprint(err)), " "))
			return
		}
		fmt.Println("ok " + name)
	}()
	work()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(got, expected interface{}) {
	if !reflect.DeepEqual(got, expected) {
		panic(fmt.Sprintf("%v instead of %v", got, expected))
	}
}

func raises(code string, err error) *pgconn.PgError {
	var server *pgconn.PgError
	if !errors.As(err, &server) || server.Code != code {
		panic(fmt.Sprintf("%v, where %s was due", err, code))
	}
	return server
}

func options() string {
	mode := "require"
	if os.Getenv("PGSSLMODE") == "disable" {
		mode = "disable"
	}
	return "sslmode=" + mode
}

func connect(more string) *pgx.Conn {
	conn, err := pgx.Connect(background, options()+" "+more)
	must(err)
	return conn
}

type asker interface {
	QueryRow(context.Context, string, ...interface{}) pgx.Row
}

func text(conn asker, query string, arguments ...interface{}) string {
	var value string
	must(conn.QueryRow(background, query, arguments...).Scan(&value))
	return value
}

func count(conn asker, query string, arguments ...interface{}) int {
	var value int
	must(conn.QueryRow(background, query, arguments...).Scan(&value))
	return value
}

func main() {
	group("connect", func() {
		conn := connect("application_name=pgx search_path=public statement_timeout=61s timezone=Asia/Tokyo")
		defer conn.Close(background)
		equal(text(conn, "SHOW statement_timeout"), "61s")
		equal(text(conn, "SHOW search_path"), "public")
		equal(conn.PgConn().ParameterStatus("TimeZone"), "Asia/Tokyo")
		must(conn.Ping(background))
	})
	group("introspection", func() {
		conn := connect("")
		defer conn.Close(background)
		equal(text(conn, "SELECT column_name FROM information_schema.columns WHERE table_name = $1 AND ordinal_position = $2", "runs", 1), "org_id")
		statement, err := conn.Prepare(background, "described", "SELECT p, name, created_at FROM pipelines p WHERE id = $1")
		must(err)
		equal(statement.ParamOIDs[0], uint32(pgtype.UUIDOID))
		must(conn.Deallocate(background, "described"))
	})
	group("types", types)
	group("transactions", transactions)
	group("streaming", func() {
		conn := connect("")
		defer conn.Close(background)
		rows, err := conn.Query(background, "SELECT g FROM generate_series(1, $1::int) g", rowCount)
		must(err)
		sum, value := 0, 0
		for rows.Next() {
			must(rows.Scan(&value))
			sum += value
		}
		must(rows.Err())
		equal(sum, rowCount*(rowCount+1)/2)
	})
	group("pipeline", func() {
		conn := connect("")
		defer conn.Close(background)
		batch := &pgx.Batch{}
		for at := 0; at < 300; at++ {
			batch.Queue("SELECT $1::int + 1", at)
		}
		batch.Queue("SELECT 1 / $1::int", 0)
		batch.Queue("SELECT 2")
		results := conn.SendBatch(background, batch)
		for at := 0; at < 300; at++ {
			var value int
			must(results.QueryRow().Scan(&value))
			equal(value, at+1)
		}
		_, err := results.Exec()
		raises("22012", err)
		results.Close()
		equal(count(conn, "SELECT 3"), 3)
	})
	group("copy", func() {
		conn := connect("")
		defer conn.Close(background)
		_, err := conn.Exec(background, "CREATE TEMPORARY TABLE loaded (a int, b text)")
		must(err)
		rows := [][]interface{}{}
		for at := 0; at < 1000; at++ {
			rows = append(rows, []interface{}{at, "text"})
		}
		copied, err := conn.CopyFrom(background, pgx.Identifier{"loaded"}, []string{"a", "b"}, pgx.CopyFromRows(rows))
		must(err)
		equal(copied, int64(1000))
		out := &strings.Builder{}
		_, err = conn.PgConn().CopyTo(background, out, "COPY (SELECT a FROM loaded ORDER BY a) TO STDOUT")
		must(err)
		equal(strings.Count(out.String(), "\n"), 1000)
	})
	group("cancel", func() {
		pool, err := pgxpool.Connect(background, options()+" pool_max_conns=2")
		must(err)
		defer pool.Close()
		soon, done := context.WithTimeout(background, 300*time.Millisecond)
		defer done()
		if _, err = pool.Exec(soon, "SELECT pg_sleep(60)"); err == nil {
			panic("slept")
		}
		equal(count(pool, "SELECT 1"), 1)
		conn := connect("")
		defer conn.Close(background)
		go func() {
			time.Sleep(300 * time.Millisecond)
			conn.PgConn().CancelRequest(background)
		}()
		_, err = conn.Exec(background, "SELECT pg_sleep(60)")
		raises("57014", err)
		equal(count(conn, "SELECT 1"), 1)
	})
	group("timeouts", func() {
		conn := connect("statement_timeout=150")
		defer conn.Close(background)
		_, err := conn.Exec(background, "SELECT pg_sleep(60)")
		raises("57014", err)
	})
	group("settings", func() {
		conn, other := connect(""), connect("")
		defer conn.Close(background)
		defer other.Close(background)
		_, err := conn.Exec(background, "SET search_path = pg_catalog; SET work_mem = '3MB'")
		must(err)
		equal(text(conn, "SHOW search_path")+text(conn, "SHOW work_mem"), "pg_catalog3MB")
		if text(other, "SHOW search_path") == "pg_catalog" {
			panic("leaked")
		}
		_, err = conn.Exec(background, "RESET ALL")
		must(err)
		equal(text(conn, "SELECT current_setting('app.current_org_id')"), org)
	})
	group("prepared", prepared)
	group("deallocate", func() {
		conn := connect("statement_cache_capacity=5")
		defer conn.Close(background)
		for at := 0; at < 40; at++ {
			equal(count(conn, fmt.Sprintf("SELECT $1::int + %d", at%12), at), at+at%12)
		}
		_, err := conn.Prepare(background, "own", "SELECT 1")
		must(err)
		must(conn.Deallocate(background, "own"))
		_, err = conn.Exec(background, `EXECUTE "own"`)
		raises("26000", err)
	})
	group("notices", func() {
		heard := []string{}
		config, err := pgx.ParseConfig(options())
		must(err)
		config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { heard = append(heard, notice.Code) }
		conn, err := pgx.ConnectConfig(background, config)
		must(err)
		defer conn.Close(background)
		_, err = conn.Exec(background, "ROLLBACK")
		must(err)
		_, err = conn.Exec(background, "DROP TABLE IF EXISTS pg_temp.nothing")
		must(err)
		equal(heard, []string{"25P01", "00000"})
	})
	group("errors", func() {
		conn := connect("")
		defer conn.Close(background)
		_, err := conn.Exec(background, "UPDATE pipelines SET status = 'odd'")
		equal(raises("23514", err).ConstraintName, "pipelines_status_check")
		_, err = conn.Exec(background, "SELECT nme FROM pipelines")
		equal(raises("42703", err).Position, int32(8))
		if os.Getenv("PARTYWALL_DIRECT") == "" {
			_, err = conn.Exec(background, "LISTEN channel")
			raises("42501", err)
		}
	})
	group("temporary tables", func() {
		conn := connect("")
		defer conn.Close(background)
		_, err := conn.Exec(background, "CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a")
		must(err)
		equal(count(conn, "SELECT count(*) FROM mine WHERE a > $1", 5), 5)
		_, err = conn.Exec(background, "DISCARD TEMP")
		must(err)
		_, err = conn.Exec(background, "SELECT * FROM mine")
		raises("42P01", err)
	})
	group("database-sql", func() {
		db, err := sql.Open("pgx", options())
		must(err)
		defer db.Close()
		db.SetMaxOpenConns(connections)
		tx, err := db.BeginTx(background, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
		must(err)
		_, err = tx.Exec("DELETE FROM pipelines WHERE name = $1", "nobody")
		raises("25006", err)
		must(tx.Rollback())
		statement, err := db.Prepare("SELECT $1::int + 1")
		must(err)
		for at := 0; at < times/10; at++ {
			var value int
			must(statement.QueryRow(at).Scan(&value))
			equal(value, at+1)
		}
	})
	if failed {
		os.Exit(1)
	}
}

func types() {
	conn := connect("")
	defer conn.Close(background)
	when := time.Date(2024, 2, 29, 12, 34, 56, 789000, time.UTC)
	var (
		small   int32
		large   int64
		words   string
		data    []byte
		moment  time.Time
		array   []int32
		truth   bool
		nothing *string
		decimal pgtype.Numeric
	)
	must(conn.QueryRow(background,
		"SELECT $1::int4, $2::int8, $3::text, $4::bytea, $5::timestamptz, $6::int4[], $7::bool, $8::text, '1.5'::numeric",
		7, int64(1)<<40, "Grüße 'x' 世界", []byte{0, 255}, when, []int32{1, 2}, true, nil,
	).Scan(&small, &large, &words, &data, &moment, &array, &truth, &nothing, &decimal))
	equal([]interface{}{small, large, words, data, array, truth}, []interface{}{int32(7), int64(1) << 40, "Grüße 'x' 世界", []byte{0, 255}, []int32{1, 2}, true})
	equal(moment.Equal(when), true)
	equal(nothing, (*string)(nil))
}

func transactions() {
	conn := connect("")
	defer conn.Close(background)
	name := fmt.Sprintf("pgx-%d", time.Now().UnixNano())
	of := "SELECT count(*) FROM pipelines WHERE name = $1"
	tx, err := conn.BeginTx(background, pgx.TxOptions{IsoLevel: pgx.Serializable})
	must(err)
	_, err = tx.Exec(background, insert, org, name)
	must(err)
	inner, err := tx.Begin(background)
	must(err)
	_, err = inner.Exec(background, "SELECT 1 / $1::int", 0)
	raises("22012", err)
	must(inner.Rollback(background))
	equal(count(tx, of, name), 1)
	must(tx.Rollback(background))
	equal(count(conn, of, name), 0)
	must(conn.BeginFunc(background, func(tx pgx.Tx) error {
		_, err := tx.Exec(background, "SET LOCAL work_mem = '2MB'")
		equal(text(tx, "SHOW work_mem"), "2MB")
		return err
	}))
}

func prepared() {
	pool, err := pgxpool.Connect(background, fmt.Sprintf("%s pool_max_conns=%d", options(), connections))
	must(err)
	defer pool.Close()
	var all sync.WaitGroup
	wrong := make(chan interface{}, connections)
	for worker := 0; worker < connections; worker++ {
		all.Add(1)
		go func(own int) {
			defer all.Done()
			defer func() {
				if err := recover(); err != nil {
					wrong <- err
				}
			}()
			for at := 0; at < times/connections; at++ {
				equal(count(pool, fmt.Sprintf("SELECT $1::int + %d", own%3), at), at+own%3)
			}
		}(worker)
	}
	all.Wait()
	select {
	case err := <-wrong:
		panic(err)
	default:
	}
	conn := connect("")
	defer conn.Close(background)
	for at := 0; at < times; at++ {
		equal(count(conn, "SELECT count(*) FROM pipelines WHERE name = $1", "nobody"), 0)
	}
}
