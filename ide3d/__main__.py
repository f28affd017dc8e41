"""`python -m ide3d`, for launchers: `accelerate launch -m ide3d train RECIPE`."""

from ide3d.command import main

if __name__ == "__main__":
    main()
